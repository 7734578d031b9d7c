"""Look at models without merging: verify provenance, compare two checkpoints, probe samples of tensors."""

from .differences import Diff as Diff
from .differences import TensorDiff as TensorDiff
from .differences import diff as diff
from .probing import probe as probe
from .verification import digest_of as digest_of
from .verification import tensor_digests as tensor_digests
from .verification import verify as verify
