"""Add the versions of settings and providers that each worker has in force."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NUMBERS = ("started_at", "provider_version", "config_version", "config_seen")


def upgrade() -> None:
    for name in NUMBERS:
        op.add_column("aibridge_recorders", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("aibridge_recorders", sa.Column("error", sa.Text(), nullable=True))


def downgrade() -> None:
    for name in ("error", *NUMBERS):
        op.drop_column("aibridge_recorders", name)
