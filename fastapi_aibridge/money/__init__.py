"""Prices and what requests cost. Money is counted in integers: micro-dollars, millionths of a US dollar."""
