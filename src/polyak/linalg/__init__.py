"""Linear algebra for the spectral methods: deterministic, and in float32 where that is accurate enough."""

from .arrays import Array as Array
from .blas import one_thread as one_thread
from .certified import certified_leading as certified_leading
from .float32 import SMALL_MATRIX as SMALL_MATRIX
from .float32 import eigenvectors as eigenvectors
from .lapack import divided as divided
from .lapack import has_lapack as has_lapack
from .lapack import tridiagonal as tridiagonal
from .spectral import NEGLIGIBLE as NEGLIGIBLE
from .spectral import Components as Components
from .spectral import components as components
from .spectral import count_above as count_above
from .spectral import isotropic as isotropic
from .spectral import joined as joined
from .spectral import joined_orthogonally as joined_orthogonally
from .spectral import leading as leading
from .spectral import orthogonal as orthogonal
from .spectral import product as product
from .spectral import spectrum as spectrum
from .spectral import workspace as workspace
