"""Create the table of client keys, which are managed through the admin routes."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "aibridge_client_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("initiator_id", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("models", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("aibridge_client_keys_digest", "aibridge_client_keys", ["digest"], unique=True)
    op.create_index("aibridge_client_keys_initiator", "aibridge_client_keys", ["initiator_id", "id"], unique=False)
    op.create_index("aibridge_client_keys_version", "aibridge_client_keys", ["version"], unique=False)


def downgrade() -> None:
    op.drop_table("aibridge_client_keys")
