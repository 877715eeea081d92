"""Prices, costs and budgets. Amounts of money are integers: micro-dollars, millionths of a US dollar."""
