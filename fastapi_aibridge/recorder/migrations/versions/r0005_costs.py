"""Add the costs of interceptions and the groups of their principals; both are null in older rows."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("aibridge_interceptions", sa.Column("groups", sa.Text(), nullable=True))
    op.add_column("aibridge_interceptions", sa.Column("cost", sa.BigInteger(), nullable=True))
    op.add_column("aibridge_interceptions", sa.Column("cost_estimated", sa.Boolean(), nullable=True))
    op.add_column("aibridge_usage_daily", sa.Column("cost", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("aibridge_usage_daily", "cost")
    op.drop_column("aibridge_interceptions", "cost_estimated")
    op.drop_column("aibridge_interceptions", "cost")
    op.drop_column("aibridge_interceptions", "groups")
