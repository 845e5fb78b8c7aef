use super::*;

const DECIDED: &str = r#"{"at":"2026-01-02T03:04:05.678Z","event":"operation.decided","operation":"op_01kb5a1dd3jmgq1j5yn4ew2f0q","session":"ses_01kb5a1dd3jmgq1j5yn4ew2f0q","launch":"wl_01kb5a1dd3jmgq1j5yn4ew2f0q","workload":"crm","target":"graph","action":"http:GET","summary":"GET /a\"b\\cä","verdict":"allow","code":null,"basis":{"generation":3,"policies":["p"],"reasons":[],"obligations":{"max_session":null}},"initiator":1000,"credential":"entra"}"#;
const FINISHED: &str = r#"{"at":"2026-01-02T03:04:05Z","event":"operation.finished","operation":"op_01kb5a1dd3jmgq1j5yn4ew2f0q","outcome":"done","status":200,"request":{"bytes":0,"digest":null},"response":{"bytes":7,"digest":"ab"},"masked":{"$.mail":2}}"#;
const RECORDED: &str = r#"{"at":"2026-01-02T03:04:05Z","event":"payload.recorded","operation":"op_01kb5a1dd3jmgq1j5yn4ew2f0q","session":"ses_01kb5a1dd3jmgq1j5yn4ew2f0q","digest":"ab","bytes":7}"#;
const OPENED: &str = r#"{"at":"2026-01-02T03:04:05Z","event":"session.opened","session":"ses_01kb5a1dd3jmgq1j5yn4ew2f0q","launch":"wl_01kb5a1dd3jmgq1j5yn4ew2f0q","workload":"crm","process":null,"original":"198.18.0.1:443","host":"graph.microsoft.com","target":null}"#;
const CLOSED: &str = r#"{"at":"2026-01-02T03:04:05Z","event":"session.closed","session":"ses_01kb5a1dd3jmgq1j5yn4ew2f0q","reason":"done"}"#;
const CUT: &str = r#"{"at":"2026-01-02T03:04:05Z","event":"operation.finished","operation":"op_01kb5a1dd3jmgq1j5yn4ew2f0q","outcome":"policy-changed","policies":["audit"],"status":200,"request":{"bytes":0,"digest":null},"response":{"bytes":7,"digest":"ab"}}"#;
const ALL: [&str; 6] = [DECIDED, FINISHED, CUT, RECORDED, OPENED, CLOSED];

#[test]
fn what_is_read_straight_is_what_serde_reads() {
    for body in ALL {
        let straight = straight(hint(body).unwrap(), body).expect(body);
        assert_eq!(Some(&straight), serde_json::from_str(body).ok().as_ref(), "{body}");
        assert_eq!(serde_json::to_string(&straight).unwrap(), body);
    }
}

/// Whatever the order of the fields, and however they were changed: the answer is that of serde.
#[test]
fn an_event_is_read_or_refused_as_serde_does_it() {
    for body in ALL {
        let mut changed = vec![body.replace("\"event\"", " \"event\""), body.replace('}', ",\"new\":[1]}")];
        for at in (1..body.len()).filter(|at| body.is_char_boundary(*at)) {
            changed.push(body[..at].to_owned());
            changed.push(format!("{}{}", &body[..at], body[at..].replacen(',', ",\"at\":1,", 1)));
            changed.push(format!("{}{}", &body[..at], body[at..].replacen(['0', 'e'], "f", 1)));
            changed.push(format!("{}{}", &body[..at], body[at..].replacen("null", "7", 1)));
            changed.push(format!("{}{}", &body[..at], body[at..].replacen("ated", "\\u0061ted", 1)));
        }
        for body in changed {
            let stamp = serde_json::from_str::<Stamp>(&body).ok();
            let expected = stamp.map(|stamp| (stamp.at, stamp.kind, serde_json::from_str(&body).ok()));
            assert_eq!(read(&body).map(|(stamp, event)| (stamp.at, stamp.kind, event)), expected, "{body}");
        }
    }
}
