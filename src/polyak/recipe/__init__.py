"""Recipes: what to merge, as plain data.  Read from YAML, JSON or Python, in polyak's form or mergekit's."""

from ._model import BASE as BASE
from ._model import Cases as Cases
from ._model import Factorisation as Factorisation
from ._model import Gradient as Gradient
from ._model import Lora as Lora
from ._model import Model as Model
from ._model import Module as Module
from ._model import Recipe as Recipe
from ._model import Rule as Rule
from ._model import Scalar as Scalar
from ._model import Search as Search
from ._model import Settings as Settings
from ._model import Source as Source
from ._model import Token as Token
from ._model import Value as Value
from ._model import Vocabulary as Vocabulary
from ._model import with_shared as with_shared
from .loading import load as load
from .loading import loads as loads
from .loading import read as read
from .schema import schema as schema
from .searching import Sought as Sought
from .searching import filled as filled
from .searching import sought as sought
from .writing import digest as digest
from .writing import dump as dump
