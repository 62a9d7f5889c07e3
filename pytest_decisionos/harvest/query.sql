-- The harvest: a request log → the numbers of the evidence, in one text. The engine runs the parts
-- in this order; each starts at its "-- :name" line. Only ":load" reads the log, once a file, from
-- the view "source" (ts, status, latency, signature, route, tenant, variant, release) that hides
-- its format. Times are epoch milliseconds. Every number is a count or a quantile: none depends on
-- the order in which threads add up.

-- :setup
CREATE MACRO zoned_ms(s) AS epoch_ms(TRY_CAST(s AS TIMESTAMPTZ));
-- Below 1e11 a number is seconds (until the year 5138), from there on milliseconds (since 1973).
CREATE MACRO number_ms(x) AS CASE
    WHEN x >= 0 AND x < 1e11 THEN CAST(round(x * 1000) AS BIGINT)
    WHEN x >= 1e11 AND x < 32503680000000 THEN CAST(floor(x) AS BIGINT)
END;
CREATE MACRO is_naive(s) AS coalesce(regexp_full_match(
    s, '\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?'), false);
CREATE MACRO text_ms(s, zone_known) AS CASE
    WHEN suffix(s, 'Z') AND substr(s, 5, 1) = '-' THEN zoned_ms(s)
    WHEN regexp_full_match(s, '\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?[+-]\d\d(:?\d\d)?')
        THEN zoned_ms(s)
    WHEN zone_known AND is_naive(s) THEN zoned_ms(s || 'Z')
    ELSE number_ms(TRY_CAST(s AS DOUBLE))
END;
-- A row without a time is one that cannot be read; what it said is then in "said". For others,
-- "said" has the names [route, tenant, variant, release], unless "known" has them already: a
-- hundred kinds of request stand for ten million rows, and only their hashes are kept.
CREATE TABLE rows (
    file USMALLINT, t BIGINT, naive BOOLEAN, latency DOUBLE, error BOOLEAN, unavailable BOOLEAN,
    signature BOOLEAN, kind UBIGINT, said VARCHAR[]
);
-- Each kind once, whatever the number of files: the load joins it to every row.
CREATE TABLE known (kind UBIGINT PRIMARY KEY, names VARCHAR[]);
CREATE TABLE copies (
    t BIGINT, latency DOUBLE, error BOOLEAN, unavailable BOOLEAN, signature BOOLEAN,
    r UTINYINT, x UTINYINT, v UTINYINT
);
CREATE TABLE filters (i INTEGER, col VARCHAR, pattern VARCHAR);
CREATE TABLE zone (slot BIGINT, shift BIGINT);
CREATE TABLE cuts (dim VARCHAR, code INTEGER, p50 DOUBLE, p95 DOUBLE, p99 DOUBLE);
CREATE TABLE slow_above (v INTEGER, w BIGINT, ref_v INTEGER, ref_w BIGINT, bound DOUBLE);

-- :known
-- The kinds in a sample of a large log.
INSERT INTO known
SELECT hash($salt, route, tenant, variant, release) AS kind,
    any_value([route, tenant, variant, release])
FROM source GROUP BY kind
ON CONFLICT DO NOTHING;

-- :load
INSERT INTO rows
SELECT $file, CASE WHEN NOT bad THEN t END, naive, latency, status >= 500 OR status = 429,
    status >= 500, signed_wrong, kind,
    CASE WHEN bad THEN [ts, CAST(status AS VARCHAR), CAST(latency AS VARCHAR), signature]
         WHEN k.names IS NULL THEN [route, tenant, variant, release] END
FROM (
    SELECT *, hash($salt, route, tenant, variant, release) AS kind,
        t IS NULL OR status IS NULL OR latency IS NULL
        OR NOT (status BETWEEN 100 AND 599 AND status = floor(status))
        OR NOT latency BETWEEN 0 AND 1e9
        OR ($has_signature AND signed_wrong IS NULL) AS bad
    FROM (
        SELECT *, text_ms(ts, $zone_known) AS t, $zone_known AND is_naive(ts) AS naive,
            TRY_CAST(signature AS BOOLEAN) AS signed_wrong
        FROM source
    )
) LEFT JOIN known k USING (kind);

-- :naive_slots
SELECT DISTINCT t // 900000 FROM rows WHERE naive AND t IS NOT NULL;

-- :zone
UPDATE rows SET t = t - zone.shift,
    said = CASE WHEN zone.shift IS NULL THEN [$unclear] ELSE said END
FROM zone WHERE naive AND t // 900000 = zone.slot;

-- :seen
SELECT file, count(*), count(t), max(t) FROM rows GROUP BY file ORDER BY file;

-- :unreadable
SELECT file, said FROM rows WHERE t IS NULL LIMIT 1000;

-- :counts
CREATE TABLE counts AS
SELECT file, kind, any_value(said) AS names, count(*) AS n FROM rows
WHERE t >= $since AND t < $until GROUP BY file, kind;

-- :kinds
-- A copy is a mirrored request that the canary is measured by, unless it is a probe or the like:
-- then a filter of another column leaves it out.
CREATE TABLE kinds AS
SELECT kind, names[1] AS route, names[2] AS tenant, names[3] AS variant, names[4] AS release,
    (SELECT min(i) FROM filters
     WHERE CASE col WHEN 'route' THEN names[1] WHEN 'tenant' THEN names[2] ELSE names[3] END
           GLOB pattern) AS filtered,
    $shadow AND names[3] = 'shadow' AND NOT EXISTS (
        SELECT 1 FROM filters
        WHERE CASE col WHEN 'route' THEN names[1] WHEN 'tenant' THEN names[2] END GLOB pattern
    ) AS copy
FROM (
    SELECT c.kind, any_value(coalesce(k.names, c.names)) AS names
    FROM counts c LEFT JOIN known k USING (kind) GROUP BY c.kind
);

-- :variants
SELECT copy, variant, release, file, CAST(sum(n) AS BIGINT) FROM counts JOIN kinds USING (kind)
WHERE filtered IS NULL OR copy GROUP BY ALL ORDER BY ALL;

-- :filtered
SELECT file, filtered, CAST(sum(n) AS BIGINT) FROM counts JOIN kinds USING (kind)
WHERE filtered IS NOT NULL GROUP BY ALL;

-- :codes
-- 1 … 100 by count, 101 for all others; 0 has no name. Of variants: 1 control, 2 canary, 0 none.
CREATE TABLE codes AS
WITH kept AS (
    SELECT * FROM kinds WHERE filtered IS NULL AND variant IN ('', 'control', 'canary')
    AND (variant <> '' OR NOT $has_variants)
), n AS (SELECT kind, CAST(sum(n) AS BIGINT) AS n FROM counts GROUP BY kind
), routes AS (
    SELECT route, least(row_number() OVER (ORDER BY sum(n) DESC, route), 101) AS code
    FROM kept JOIN n USING (kind) WHERE route <> '' GROUP BY route
), tenants AS (
    SELECT tenant, least(row_number() OVER (ORDER BY sum(n) DESC, tenant), 101) AS code
    FROM kept JOIN n USING (kind) WHERE tenant <> '' GROUP BY tenant
)
SELECT kind, route, tenant, coalesce(routes.code, 0)::UTINYINT AS r,
    coalesce(tenants.code, 0)::UTINYINT AS x,
    CAST(CASE variant WHEN 'control' THEN 1 WHEN 'canary' THEN 2 ELSE 0 END AS UTINYINT) AS v
FROM kept LEFT JOIN routes USING (route) LEFT JOIN tenants USING (tenant);

-- :names
SELECT DISTINCT 'route', r, CASE WHEN r > 100 THEN '(other)' ELSE route END FROM codes WHERE r > 0
UNION ALL
SELECT DISTINCT 'tenant', x, CASE WHEN x > 100 THEN '(other)' ELSE tenant END FROM codes WHERE x > 0;

-- :kept
CREATE TABLE kept AS
SELECT t, latency, error, unavailable, signature, codes.r, codes.x, codes.v
FROM rows JOIN codes USING (kind) WHERE t >= $since AND t < $until;

-- :copies
INSERT INTO copies
SELECT t, latency, error, unavailable, signature, 0, 0, 2
FROM rows JOIN kinds USING (kind) WHERE copy AND t >= $since AND t < $until;

-- :compared
-- What control and canary are told apart in: all that counts, and the copies.
CREATE VIEW compared AS SELECT * FROM kept UNION ALL SELECT * FROM copies;

-- :users
-- Of the canary, from the start of its step on.
SELECT count(*) FROM kept WHERE v = 2 AND t >= $start AND EXISTS (SELECT 1 FROM copies);

-- :drop
DROP TABLE rows;

-- :span
SELECT count(*), min(t), max(t), (SELECT min(t) FROM compared WHERE v = 2) FROM kept;

-- :all
SELECT 0, count(*), count(*) FILTER (error), count(*) FILTER (unavailable),
    count(*) FILTER (signature), quantile_cont(latency, [0.5, 0.95, 0.99]) FROM kept;

-- :by_route
SELECT r, count(*), count(*) FILTER (error), count(*) FILTER (unavailable),
    count(*) FILTER (signature), quantile_cont(latency, [0.5, 0.95, 0.99]) FROM kept
WHERE r > 0 GROUP BY r;

-- :by_tenant
SELECT x, count(*), count(*) FILTER (error), count(*) FILTER (unavailable),
    count(*) FILTER (signature), quantile_cont(latency, [0.5, 0.95, 0.99]) FROM kept
WHERE x > 0 GROUP BY x;

-- :by_side
SELECT v, count(*), count(*) FILTER (error), count(*) FILTER (unavailable),
    count(*) FILTER (signature), quantile_cont(latency, [0.5, 0.95, 0.99]) FROM compared
WHERE v > 0 AND t >= $warm GROUP BY v;

-- :by_window
SELECT v, t // $window AS w, count(*), count(*) FILTER (error),
    quantile_cont(latency, [0.95, 0.99]) FROM compared
WHERE t >= $first AND t < $last GROUP BY v, w ORDER BY w, v;

-- :buckets
SELECT v, t // $bucket AS b, count(*), count(*) FILTER (error) FROM compared
WHERE t >= $first AND t < $last GROUP BY v, b ORDER BY v, b;

-- :slow
SELECT s.v, s.w, compared.v, t // $bucket AS b, count(*)
FROM compared JOIN slow_above s ON compared.v = s.ref_v AND t // $window = s.ref_w
WHERE latency > $lowest AND t >= $first AND t < $last AND latency > s.bound
GROUP BY s.v, s.w, compared.v, b;

-- :spread
-- Events in 30 equal sub-buckets of the span, for the dispersion D: errors, and latencies above
-- the quantiles of the whole (a), the route (r) and the tenant (x).
SELECT kept.r, kept.x, (t - $first) * 30 // $length AS b, count(*), count(*) FILTER (error),
    count(*) FILTER (unavailable), count(*) FILTER (signature),
    count(*) FILTER (latency > ca.p50), count(*) FILTER (latency > ca.p95),
    count(*) FILTER (latency > ca.p99),
    count(*) FILTER (latency > cr.p50), count(*) FILTER (latency > cr.p95),
    count(*) FILTER (latency > cr.p99),
    count(*) FILTER (latency > cx.p50), count(*) FILTER (latency > cx.p95),
    count(*) FILTER (latency > cx.p99)
FROM kept
    CROSS JOIN (SELECT * FROM cuts WHERE dim = 'all') ca
    LEFT JOIN (SELECT * FROM cuts WHERE dim = 'route') cr ON kept.r = cr.code
    LEFT JOIN (SELECT * FROM cuts WHERE dim = 'tenant') cx ON kept.x = cx.code
GROUP BY kept.r, kept.x, b;

-- :side_spread
SELECT v, (t - $warm) * 30 // $length AS b, count(*), count(*) FILTER (error),
    count(*) FILTER (unavailable), count(*) FILTER (signature),
    count(*) FILTER (latency > c.p50), count(*) FILTER (latency > c.p95),
    count(*) FILTER (latency > c.p99)
FROM compared JOIN (SELECT * FROM cuts WHERE dim = 'side') c ON compared.v = c.code
WHERE t >= $warm GROUP BY v, b;

-- :order_all
SELECT quantile_disc(latency, $ranks) FROM kept;

-- :order_route
SELECT quantile_disc(latency, $ranks) FROM kept WHERE r = $code;

-- :order_tenant
SELECT quantile_disc(latency, $ranks) FROM kept WHERE x = $code;

-- :order_side
SELECT quantile_disc(latency, $ranks) FROM compared WHERE v = $code AND t >= $warm;
