"""Why: real clients, all through the whole system. The rows' modules explain their assertions as tests do."""

import pytest

pytest.register_assert_rewrite(
    "tests.clients.rows_files",
    "tests.clients.rows_forwards",
    "tests.clients.rows_others",
    "tests.clients.rows_sessions",
    "tests.clients.rows_tools",
    "tests.clients.services",
)
