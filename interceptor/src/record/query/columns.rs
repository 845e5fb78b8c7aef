//! What is selected of sessions and operations, by the database's schema: one that was moved aside keeps the schema that it
//! had, and isn't written to. What that doesn't have is made of what it has, or NULL where only events would tell it.

/// Of sessions, `FROM sessions s`, in the order that [`super::rows::session`] takes them in.
pub(in crate::record) fn of_sessions(schema: i64) -> String {
    let since = |version: i64, column, before| if schema < version { before } else { column };
    let operations =
        since(4, "operations", "(SELECT count(*) FROM operations o WHERE o.session = s.session AND o.seq > s.seq)");
    let denied = since(
        4,
        "denied",
        "(SELECT count(*) FROM operations o WHERE o.session = s.session AND o.seq > s.seq AND o.verdict = 'deny')",
    );
    let principals = match schema {
        4.. => "SELECT principal FROM session_principals p WHERE p.session = s.session",
        2 | 3 => "SELECT DISTINCT principal FROM operations o WHERE o.session = s.session AND principal IS NOT NULL",
        _ => "SELECT NULL AS principal WHERE 0",
    };
    let cut_by = since(10, "cut_by", "NULL");
    format!(
        "SELECT session, launch, workload, process, original, host, target, opened_at, closed_at, reason,
    {operations}, {denied},
    (SELECT json_group_array(principal) FROM ({principals} ORDER BY principal LIMIT 100)), {cut_by} FROM sessions s"
    )
}

/// Of operations, `FROM operations o`, in the order that [`super::rows::operation`] takes them in.
pub(in crate::record) fn of_operations(schema: i64) -> String {
    let since = |version: i64, column| if schema < version { "NULL" } else { column };
    let (initiator, credential) = (since(2, "initiator"), since(2, "credential"));
    let (digest, bytes) = match schema {
        8.. => ("kept_digest", "kept_bytes"),
        2..=7 => (
            "(SELECT digest FROM contents c WHERE c.operation = o.operation)",
            "(SELECT bytes FROM contents c WHERE c.operation = o.operation)",
        ),
        _ => ("NULL", "NULL"),
    };
    let masked = since(3, "masked");
    let (approval, service_request) = (since(5, "approval"), since(5, "service_request"));
    let (spent, cut_by) = (since(9, "spent"), since(9, "cut_by"));
    format!(
        "SELECT operation, session, launch, workload, target, action, summary, verdict, code,
    (SELECT body FROM events e WHERE e.seq = o.seq), decided_at, finished_at, outcome, status, request_bytes,
    request_digest, response_bytes, response_digest, {initiator}, {credential},
    {digest}, {bytes}, {masked}, {approval}, {service_request}, {spent}, {cut_by}
    FROM operations o"
    )
}
