"""What a statement that nobody wrote beforehand may consist of: bounds on its text, tables, functions, nodes.

The statement is taken apart by DuckDB's own parser. Whatever cannot be taken apart, and whatever is not named here, is
refused. The bounds on the text need no parser, so that an absurd text costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pilotage.telemetry.store.schema import TABLES

if TYPE_CHECKING:
    import duckdb

READ = frozenset(TABLES)
"""The tables that may be read."""
TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest"})
"""What may stand in FROM beside them."""

LONGEST = 10_000
"""Characters of a statement."""
DEEPEST = 60
"""Brackets inside each other."""
MOST_NODES = 3_000
"""Objects of the parsed statement; a long report with a dozen joins has about 600."""

_ARITHMETIC = "+ - * / // % ** ^ & | || ~ << >> xor"
_MATCHING = "~~ !~~ ~~* !~~* ~~~ like_escape not_like_escape ilike_escape not_ilike_escape @> <@ && ^@"
_AGGREGATES = """
any_value approx_count_distinct approx_quantile arbitrary arg_max arg_max_null arg_min arg_min_null array_agg avg
bit_and bit_or bit_xor bool_and bool_or corr count count_if count_star countif covar_pop covar_samp entropy favg first
fsum geomean geometric_mean group_concat histogram json_group_array json_group_object kurtosis kurtosis_pop last list
listagg mad max max_by mean median min min_by mode product quantile quantile_cont quantile_disc regr_avgx regr_avgy
regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy sem skewness stddev stddev_pop stddev_samp
string_agg sum var_pop var_samp variance weighted_avg wavg
"""
_WINDOWS = (
    "cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank row_number"
)
_NUMBERS = """
abs acos acosh add asin asinh atan atan2 atanh bit_count cbrt ceil ceiling cos cosh cot degrees divide even exp fdiv
floor fmod gcd greatest isfinite isinf isnan lcm least ln log log10 log2 mod multiply pi pow power radians random round
round_even sign signbit sin sinh sqrt subtract tan tanh trunc
"""
_TIMES = """
age century current_date current_localtime current_localtimestamp date_add date_diff date_part date_sub date_trunc
datediff datepart datesub datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade epoch epoch_ms
epoch_ns epoch_us era get_current_time get_current_timestamp hour isodow isoyear julian last_day make_date make_time
make_timestamp make_timestamp_ms make_timestamptz microsecond millennium millisecond minute month monthname nanosecond
now quarter second strftime strptime time_bucket timezone timezone_hour timezone_minute to_centuries to_days to_decades
to_hours to_microseconds to_milliseconds to_minutes to_months to_quarters to_seconds to_timestamp to_weeks to_years
today transaction_timestamp try_strptime week weekday weekofyear year yearweek
"""
_TEXTS = """
ascii bar char_length character_length chr concat concat_ws contains ends_with format_bytes formatreadablesize hash hex
instr lcase left length like_escape lower ltrim md5 nfc_normalize octet_length ord position prefix regexp_escape
regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_replace regexp_split_to_array replace reverse
right rtrim sha256 split split_part starts_with str_split string_split string_split_regex strip_accents strlen strpos
substr substring suffix to_base64 translate trim ucase unicode upper url_decode
"""
_NESTED = """
aggregate apply array_aggregate array_append array_apply array_concat array_contains array_extract array_filter
array_has array_has_all array_has_any array_length array_position array_slice array_sort array_to_string
array_transform array_value cardinality element_at flatten generate_series len list_aggr list_aggregate list_append
list_apply list_avg list_concat list_contains list_count list_distinct list_element list_extract list_filter
list_first list_has list_has_all list_has_any list_intersect list_last list_max list_median list_min list_position
list_reverse list_reverse_sort list_slice list_sort list_sum list_transform list_unique list_value list_zip map
map_contains map_entries map_extract map_extract_value map_from_entries map_keys map_values range row struct_extract
struct_extract_at struct_keys struct_pack struct_values unnest
"""
_JSON = """
-> ->> from_json json json_array json_array_length json_contains json_exists json_extract json_extract_path
json_extract_path_text json_extract_string json_keys json_object json_structure json_transform json_type json_valid
json_value row_to_json to_json
"""
_OTHER = "coalesce can_cast_implicitly constant_or_null ifnull nullif typeof uuid_extract_timestamp"
FUNCTIONS = frozenset(
    " ".join(
        (_ARITHMETIC, _MATCHING, _AGGREGATES, _WINDOWS, _NUMBERS, _TIMES, _TEXTS, _NESTED, _JSON, _OTHER)
    ).split()
)
"""Every function and operator that may be called. What is not here is refused, whatever it does."""


def text_objection(sql: str) -> str:
    """Why the text alone is too much to be parsed, or an empty string."""
    if len(sql) > LONGEST:
        return f"a statement of {len(sql)} characters; {LONGEST} are taken"
    depth = deepest = 0
    for sign in sql:
        if sign in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in ")]}":
            depth -= 1
    return f"{deepest} brackets inside each other; {DEEPEST} are taken" if deepest > DEEPEST else ""


def refusal(cursor: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Why this statement may not run, or an empty string. Whatever cannot be taken apart may not."""
    import duckdb  # start-up time: only the process of a statement parses

    if objection := text_objection(sql):
        return objection
    try:
        row = cursor.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
        parsed: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    except (duckdb.Error, ValueError, RecursionError) as exc:
        return f"a statement that cannot be read ({(str(exc).splitlines() or [''])[0][:200]})"
    if parsed.get("error"):
        return str(parsed.get("error_message", "not a SELECT"))[:200]
    if len(parsed["statements"]) != 1:
        return f"{len(parsed['statements'])} statements where one is allowed"
    nodes = list(_objects(parsed["statements"][0]))
    if len(nodes) > MOST_NODES:
        return f"a statement of {len(nodes)} parts; {MOST_NODES} are taken"
    own = {entry["key"].lower() for node in nodes for entry in (node.get("cte_map") or {}).get("map", ())}
    if hidden := own & (_all_tables(cursor) - READ):
        # the name would stand for the table itself where the WITH does not reach
        return f"WITH {min(hidden)}, the name of another table; choose another name"
    return next(filter(None, (_objection(node, own) for node in nodes)), "")


def _all_tables(cursor: duckdb.DuckDBPyConnection) -> set[str]:
    sql = "SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views()"
    return {str(name).lower() for (name,) in cursor.execute(sql).fetchall()}


def _objection(node: dict[str, Any], own: set[str]) -> str:
    match node.get("type"):
        case "BASE_TABLE":
            name = str(node["table_name"]).lower()
            plain = not node.get("catalog_name") and node.get("schema_name") in ("", "main")
            if not plain or name not in READ | own:
                return f"the table {node['table_name']!r}; there are {', '.join(sorted(READ))}"
        case "SHOW_REF":
            return "SHOW or DESCRIBE; the tool's description lists the columns"
        case "TABLE_FUNCTION":
            name = str(node["function"]["function_name"]).lower()
            if name not in TABLE_FUNCTIONS:
                return f"the table function {name!r}; there are {', '.join(sorted(TABLE_FUNCTIONS))}"
        case _:
            name = str(node.get("function_name", "")).lower()
            if name and name not in FUNCTIONS:
                return f"the function {name!r}, which a question about runs does not need"
    return ""


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a parsed statement, however deep."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
