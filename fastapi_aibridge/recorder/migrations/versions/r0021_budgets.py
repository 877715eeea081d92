"""Create budgets, their counters, and the reservations of running interceptions."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_ACCOUNT = """
CREATE OR REPLACE FUNCTION aibridge_account(
    recorder text,
    ended_ids text[], ended_costs bigint[],
    asked_numbers bigint[], asked_ids text[], asked_estimates bigint[], asked_spent bigint[],
    named_places integer[], named_counters bigint[], named_limits bigint[]
) RETURNS TABLE (refused bigint, counter bigint, counter_spent bigint, counter_reserved bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    touched bigint[];
    from_place integer;
    to_place integer;
    count_of_asked integer := coalesce(cardinality(asked_ids), 0);
    full_counter bigint;
BEGIN
    touched := ARRAY(
        SELECT unnest(named_counters)
        UNION SELECT h.counter_id FROM aibridge_reservations h WHERE h.interception_id = ANY(ended_ids)
    );
    PERFORM 1 FROM aibridge_budget_counters c WHERE c.id = ANY(touched) ORDER BY c.id FOR UPDATE;
    WITH gone AS (
        DELETE FROM aibridge_reservations h USING unnest(ended_ids, ended_costs) AS e(id, cost)
        WHERE h.interception_id = e.id
        RETURNING h.counter_id, e.cost - h.spent AS due, h.reserved AS freed
    ), sums AS (
        SELECT g.counter_id, sum(g.due)::bigint AS due, sum(g.freed)::bigint AS freed FROM gone g GROUP BY g.counter_id
    )
    UPDATE aibridge_budget_counters c SET spent = c.spent + s.due, reserved = c.reserved - s.freed
    FROM sums s WHERE c.id = s.counter_id;

    from_place := 1;
    WHILE from_place <= count_of_asked LOOP
        -- All at once where they fit, else one by one.
        to_place := CASE WHEN from_place = 1 THEN count_of_asked ELSE from_place END;
        LOOP
            SELECT w.counter INTO full_counter FROM (
                SELECT n.counter, min(n.most) AS most,
                    sum(asked_estimates[n.place] + asked_spent[n.place]
                        - coalesce(h.spent, 0) - coalesce(h.reserved, 0)) AS added
                FROM unnest(named_places, named_counters, named_limits) AS n(place, counter, most)
                LEFT JOIN aibridge_reservations h
                    ON h.interception_id = asked_ids[n.place] AND h.counter_id = n.counter
                WHERE n.place BETWEEN from_place AND to_place
                GROUP BY n.counter
            ) w LEFT JOIN aibridge_budget_counters c ON c.id = w.counter
            WHERE c.id IS NULL OR w.most <= 0 OR c.spent + c.reserved + w.added > w.most
            ORDER BY w.counter LIMIT 1;
            EXIT WHEN full_counter IS NULL OR to_place = from_place;
            to_place := from_place;
        END LOOP;
        IF full_counter IS NULL THEN
            WITH asked AS (
                SELECT n.counter, asked_ids[n.place] AS id, asked_estimates[n.place] AS estimate,
                    asked_spent[n.place] AS paid, coalesce(h.spent, 0) AS spent, coalesce(h.reserved, 0) AS reserved
                FROM unnest(named_places, named_counters, named_limits) AS n(place, counter, most)
                LEFT JOIN aibridge_reservations h
                    ON h.interception_id = asked_ids[n.place] AND h.counter_id = n.counter
                WHERE n.place BETWEEN from_place AND to_place
            ), held AS (
                INSERT INTO aibridge_reservations AS r (interception_id, counter_id, recorder_id, spent, reserved)
                SELECT a.id, a.counter, recorder, a.paid, a.estimate FROM asked a
                ON CONFLICT (interception_id, counter_id) DO UPDATE
                SET recorder_id = excluded.recorder_id, spent = excluded.spent, reserved = excluded.reserved
            ), sums AS (
                SELECT a.counter, sum(a.paid - a.spent)::bigint AS due, sum(a.estimate - a.reserved)::bigint AS more
                FROM asked a GROUP BY a.counter
            )
            UPDATE aibridge_budget_counters c SET spent = c.spent + s.due, reserved = c.reserved + s.more
            FROM sums s WHERE c.id = s.counter;
        ELSE
            refused := asked_numbers[from_place];
            counter := full_counter;
            RETURN NEXT;
        END IF;
        from_place := to_place + 1;
    END LOOP;
    RETURN QUERY
        SELECT NULL::bigint, c.id, c.spent, c.reserved FROM aibridge_budget_counters c WHERE c.id = ANY(touched);
END $$
"""


def upgrade() -> None:
    op.add_column("aibridge_interceptions", sa.Column("upstream_model", sa.Text(), nullable=True))
    op.create_table(
        "aibridge_budgets",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("fallback_model", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("scope", "id", "period"),
    )
    op.create_table(
        "aibridge_budget_counters",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("told", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "aibridge_budget_counters_key",
        "aibridge_budget_counters",
        ["scope", "subject", "period", "started_at"],
        unique=True,
    )
    op.create_index("aibridge_budget_counters_started", "aibridge_budget_counters", ["started_at"], unique=False)
    op.create_table(
        "aibridge_reservations",
        sa.Column("interception_id", sa.Text(), nullable=False),
        sa.Column("counter_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("recorder_id", sa.Text(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("interception_id", "counter_id"),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_ACCOUNT)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION aibridge_account")
    op.drop_table("aibridge_reservations")
    op.drop_table("aibridge_budget_counters")
    op.drop_table("aibridge_budgets")
    op.drop_column("aibridge_interceptions", "upstream_model")
