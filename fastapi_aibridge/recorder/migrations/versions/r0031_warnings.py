"""Keep the amount that a budget's warning was about instead of the percentage, because budgets change."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _change(sa.Integer(), sa.BigInteger())


def downgrade() -> None:
    op.execute("UPDATE aibridge_budget_counters SET told = 0")
    _change(sa.BigInteger(), sa.Integer())


def _change(before: sa.types.TypeEngine[int], after: sa.types.TypeEngine[int]) -> None:
    if op.get_bind().dialect.name == "postgresql":  # SQLite's integers have 64 bits anyway
        op.alter_column("aibridge_budget_counters", "told", existing_type=before, type_=after, existing_nullable=False)
