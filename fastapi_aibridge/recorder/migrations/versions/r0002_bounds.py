"""Add agents, truncation, the owners of provider objects, and the table of refused rows."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("aibridge_interceptions", sa.Column("agent_id", sa.Text(), nullable=True))
    op.add_column("aibridge_interceptions", sa.Column("parent_agent_id", sa.Text(), nullable=True))
    op.add_column(
        "aibridge_interceptions", sa.Column("truncated", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.create_table(
        "aibridge_objects",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("initiator_id", sa.Text(), nullable=False),
        sa.Column("interception_id", sa.Text(), nullable=True),
        sa.Column("noted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "object_id"),
    )
    op.create_index("aibridge_objects_initiator", "aibridge_objects", ["initiator_id"], unique=False)
    op.create_index("aibridge_objects_noted", "aibridge_objects", ["noted_at"], unique=False)
    op.create_table(
        "aibridge_set_aside",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("recorder_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("set_aside_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("aibridge_set_aside_at", "aibridge_set_aside", ["set_aside_at"], unique=False)


def downgrade() -> None:
    op.drop_table("aibridge_set_aside")
    op.drop_table("aibridge_objects")
    for name in ("truncated", "parent_agent_id", "agent_id"):
        op.drop_column("aibridge_interceptions", name)
