"""Prices and what requests cost. Money is counted in integers: micro-dollars, millionths of a US dollar."""

from .price import Price
from .prices import Prices

__all__ = ["Price", "Prices"]
