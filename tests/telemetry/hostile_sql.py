"""Fifty statements that would take a store down: memory, time, size, depth, files, functions that act."""

from __future__ import annotations

_LONG = "'" + "ab" * 2_000 + "'"
HOSTILE = (
    # memory in one call
    "SELECT length(printf('%900000000d', 7))",
    "SELECT len(generate_series(1, 60000000))",
    "SELECT len(range(100000000))",
    "SELECT length(repeat('x', 1000000000))",
    "SELECT length(lpad('x', 1000000000, 'y'))",
    "SELECT length(rpad('x', 1000000000, 'y'))",
    "SELECT length(format('{:>900000000}', 7))",
    "SELECT len(list_resize([1], 500000000))",
    "SELECT length(bar(1, 0, 1, 900000000))",
    "SELECT length(string_agg('" + "x" * 500 + "', '')) FROM range(3000000)",
    # memory by growth
    "SELECT length("
    + "replace(" * 6
    + "'aaaaaaaaaa'"
    + ", 'a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')" * 6
    + ")",
    "SELECT list(i::VARCHAR || 'padding to fill the memory') FROM range(200000000) t(i)",
    "SELECT count(DISTINCT i * 7919) FROM range(300000000) t(i)",
    "SELECT i, count(*) FROM range(200000000) t(i) GROUP BY i ORDER BY 2",
    "SELECT * FROM range(100000000) t(i) ORDER BY hash(i)",
    "SELECT histogram(i) FROM range(50000000) t(i)",
    "SELECT json_group_array(i) FROM range(50000000) t(i)",
    "WITH RECURSIVE t(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t",
    "SELECT list_transform(range(30000000), x -> x::VARCHAR || 'y')",
    "SELECT flatten(list_transform(range(10000), x -> range(10000)))",
    "SELECT map(range(20000000), range(20000000))",
    "SELECT string_split(string_agg('a,', ''), ',') FROM range(30000000)",
    # an answer that is too long
    "SELECT string_agg('xxxxxxxxxxxxxxxx', '') AS s FROM range(500000)",
    # time that no interrupt ends
    f"SELECT levenshtein({_LONG}, {_LONG})",
    f"SELECT damerau_levenshtein({_LONG}, {_LONG})",
    f"SELECT jaro_winkler_similarity({_LONG}, {_LONG})",
    "SELECT pg_sleep(100)",
    "SELECT sleep_ms(100000)",
    # time
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT sum(n) FROM t",
    "SELECT sum(a.i * b.i) FROM range(1000000) a(i), range(1000000) b(i)",
    "SELECT count(*) FROM range(100000) a(i) JOIN range(100000) b(j) ON a.i % 7 < b.j % 11",
    "SELECT sum(sin(i) * cos(i)) FROM range(9000000000) t(i)",
    "SELECT count(*) FROM range(3000000000) t(i) WHERE sha256(i::VARCHAR) LIKE '%dead%'",
    "SELECT count(*) FROM runs a, runs b, runs c, runs d, runs e, runs f",
    "SELECT max(regexp_replace(md5(i::VARCHAR), '(.)(.)', '\\2\\1', 'g')) FROM range(2000000000) t(i)",
    # size and depth of the text
    "SELECT 1 WHERE true" + " AND true" * 100_000,
    "SELECT 1" + " UNION ALL SELECT 1" * 20_000,
    "SELECT 1 WHERE true" + " AND true" * 1_000,
    "SELECT 1" + " UNION ALL SELECT 1" * 480,
    "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "SELECT " + "[" * 2_000 + "1" + "]" * 2_000,
    "SELECT " + "-" * 1 + " -".join(["1"] * 4_000),
    "SELECT " + "NOT " * 2_400 + "true",
    "SELECT " + "CASE WHEN true THEN " * 400 + "1" + " END" * 400,
    "SELECT * FROM " + "(SELECT * FROM " * 200 + "runs" + ")" * 200,
    # what acts or tells about the machine
    "SELECT getenv('PREFECT_API_KEY')",
    "SELECT current_setting('temp_directory')",
    "SELECT write_log('x')",
    "SELECT setseed(0.5), nextval('s')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT row_number() OVER () FROM query('SELECT 1')",
    "SELECT error('x')",
)
