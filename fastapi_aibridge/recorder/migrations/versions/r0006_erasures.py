"""Create the table of requested erasures."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "aibridge_erasures",
        sa.Column("initiator_id", sa.Text(), primary_key=True),
        sa.Column("everything", sa.Boolean(), primary_key=True),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("done_up_to", sa.BigInteger(), nullable=False, server_default="0"),
    )


def downgrade() -> None:
    op.drop_table("aibridge_erasures")
