"""An offline stand-in for a language model: it speaks the protocols, and fills schemas."""

from project.standin.answers import Behaviour
from project.standin.server import Call, StandIn

__all__ = ["Behaviour", "Call", "StandIn"]
