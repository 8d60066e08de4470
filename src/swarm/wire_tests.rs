//! Encoding and decoding, by the bytes.

use super::*;
use crate::adapt::MOST_CUTS;

/// A message of an agent of agentkit (Go).
const GO: &str = r#"{"resource":"shared-api","agent_id":"go-agent-1","new_capacity":5,"reason":"received 429","timestamp":"2026-11-23T23:38:48.858236705Z"}"#;

#[test]
fn a_go_agents_message_is_parsed() {
    let message = parse(CAPACITY, GO.as_bytes()).unwrap();
    assert_eq!((message.agent_id.as_str(), message.instance), ("go-agent-1", None));
    let (resource, remote) = &message.cuts[0];
    assert_eq!(resource, "shared-api");
    assert_eq!((remote.size, remote.age), (CutTarget::Tokens(5), 0));
    assert_eq!(remote.origin.reason, "received 429");
    let since = remote.origin.timestamp.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(since, Duration::new(1_795_477_128, 858_236_705));
    let again = parse(CAPACITY, GO.as_bytes()).unwrap();
    assert_eq!(again.cuts[0].1.id, remote.id, "one message, one id");
}

#[test]
fn only_an_announcement_of_ours_is_measured() {
    let measured =
        |text: &str| parse(CAPACITY, text.as_bytes()).unwrap().cuts[0].1.origin.is_measured;
    let ours = r#"{"resource":"a","new_capacity":5,"incident":"1","factor":0.5,"measured":true}"#;
    assert!(measured(ours));
    assert!(!measured(&ours.replace("true", "false")));
    assert!(!measured(&GO.replace(r#""new_capacity":5"#, r#""new_capacity":5,"measured":true"#)));
    assert!(parse(CAPACITY, ours.replace("true", "7").as_bytes()).is_none());
}

#[test]
fn go_escapes_and_any_offset() {
    let text = GO
        .replace("received 429", r"a \u003c b \u0026 c \u003e d \u2028")
        .replace("2026-11-23T23:38:48.858236705Z", "2026-11-24T05:08:48.9+05:30");
    let message = parse(CAPACITY, text.as_bytes()).unwrap();
    let origin = &message.cuts[0].1.origin;
    assert_eq!(origin.reason, "a < b & c > d \u{2028}");
    let since = origin.timestamp.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(since, Duration::new(1_795_477_128, 900_000_000));
}

/// What Go's `encoding/json` needs: the five fields, an integer, RFC 3339.
#[test]
fn our_announcement_is_what_a_go_agent_expects() {
    let origin = parse_timestamp("2026-11-23T23:38:48.858236705Z").map(|timestamp| Origin {
        agent_id: "agent-1".into(),
        reason: "a < b & c".into(),
        timestamp,
        is_ours: true,
        is_measured: false,
    });
    let cut = Cut {
        resource: "shared-api",
        id: 0xabc,
        factor: 0.5,
        plain: None,
        age: 1_999_999,
        origin: &origin.unwrap(),
    };
    let bytes = announcement(&cut, 5, 0xdef, usize::MAX).unwrap();
    assert_eq!(
        String::from_utf8(bytes.clone()).unwrap(),
        r#"{"resource":"shared-api","agent_id":"agent-1","new_capacity":5,"reason":"a < b & c","timestamp":"2026-11-23T23:38:48.858236705Z","incident":"0000000000000abc","factor":0.5,"age_ms":1,"instance":"0000000000000def"}"#,
    );
    let message = parse(CAPACITY, &bytes).unwrap();
    assert_eq!(message.instance, Some(0xdef));
    let (_, remote) = &message.cuts[0];
    assert_eq!((remote.id, remote.size, remote.age), (0xabc, CutTarget::Factor(0.5), 1_000_000));
}

#[test]
fn malformed_messages_are_rejected() {
    let rejected = |subject: &str, text: &str| {
        assert!(parse(subject, text.as_bytes()).is_none(), "{subject}: {text}");
    };
    for text in [
        "",
        "{}",
        "null",
        "[]",
        "5",
        "\u{0}",
        "{\"resource\":\"a\"}",
        r#"{"agent_id":"b","new_capacity":5}"#,
        r#"{"resource":5,"new_capacity":5}"#,
    ] {
        rejected(CAPACITY, text);
        rejected(STATE, text);
        rejected(QUERY, text);
    }
    for capacity in ["0", "-5", "5.0", "5e0", "1e30", "18446744073709551616", "\"5\"", "null"] {
        rejected(CAPACITY, &GO.replace(":5,", &format!(":{capacity},")));
    }
    for timestamp in ["", "now", "2026-11-23", "2026-13-23T23:38:48Z", "99999-11-23T23:38:48Z"] {
        rejected(CAPACITY, &GO.replace("2026-11-23T23:38:48.858236705Z", timestamp));
    }
    let ours = |more: &str| GO.replace('}', &format!(",{more}}}"));
    assert!(parse(CAPACITY, ours(r#""incident":"1","factor":0.5"#).as_bytes()).is_some());
    for more in [
        r#""incident":"1""#,
        r#""factor":0.5"#,
        r#""incident":"1","factor":0"#,
        r#""incident":"1","factor":1"#,
        r#""incident":"1","factor":-0.5"#,
        r#""incident":"1","factor":1e999"#,
        r#""incident":"x","factor":0.5"#,
        r#""incident":"1","factor":0.5,"age_ms":-1"#,
        r#""incident":"1","factor":0.5,"age_ms":0.5"#,
    ] {
        rejected(CAPACITY, &ours(more));
    }
    rejected(CAPACITY, &"[".repeat(1 << 20));
    rejected(CAPACITY, &"[".repeat(LONGEST));
    rejected(CAPACITY, &GO.replace('}', &format!(",\"x\":{}", "[".repeat(LONGEST / 2))));
    rejected(STATE, &format!(r#"{{"agent_id":"{}","instance":"1"}}"#, "a".repeat(LONGEST)));
    assert!(parse(CAPACITY, b"\xff\xfe").is_none());
}

/// Go escapes each of `<`, `>` and `&` as six bytes.
#[test]
fn what_is_too_long_in_a_cut_is_truncated_between_characters() {
    for reason in ["\u{e9}".repeat(LONGEST_REASON), r"\u003c".repeat(160_000)] {
        let message = parse(CAPACITY, GO.replace("received 429", &reason).as_bytes()).unwrap();
        assert_eq!(message.cuts[0].1.origin.reason.len(), LONGEST_REASON);
    }
    let id = "\u{e9}".repeat(LONGEST_ID);
    let message = parse(CAPACITY, GO.replace("go-agent-1", &id).as_bytes()).unwrap();
    assert_eq!(message.agent_id.len(), LONGEST_ID);
    assert_eq!(message.cuts[0].1.origin.agent_id, message.agent_id);
    let null = GO.replace("\"go-agent-1\"", "null").replace("\"received 429\"", "null");
    assert_eq!(parse(CAPACITY, null.as_bytes()).unwrap().cuts[0].1.origin.reason, "");
}

#[test]
fn a_reason_is_shortened_to_the_payload_of_the_bus() {
    for reason in ["429", "x", "\u{1}", "\"", "\u{e9}"] {
        let origin = long("agent", reason);
        let cut = Cut { plain: None, ..cut("api", 1, &origin) };
        let whole = announcement(&cut, 5, 3, usize::MAX).unwrap();
        let TooLarge { bytes: least } = announcement(&cut, 5, 3, 100).unwrap_err();
        for most in least..whole.len() + 3 {
            let shorter = announcement(&cut, 5, 3, most).unwrap();
            assert!(shorter.len() <= most);
            assert!(parse(CAPACITY, &shorter).is_some());
        }
        assert!(announcement(&cut, 5, 3, least - 1).is_err());
    }
}

const PLAIN: Plain = Plain { tokens: 7, floor: 0.25 };

fn cut<'a>(resource: &'a str, id: u64, origin: &'a Origin) -> Cut<'a> {
    Cut { resource, id, factor: 0.25, plain: Some(PLAIN), age: 2_000_000, origin }
}

/// The longest origin. Control characters escape to six times their length.
fn long(id: &str, reason: &str) -> Origin {
    Origin {
        agent_id: id.repeat(LONGEST_ID / id.len()),
        reason: reason.repeat(2 * LONGEST_REASON / reason.len()),
        timestamp: SystemTime::UNIX_EPOCH,
        is_ours: true,
        is_measured: false,
    }
}

/// In as many messages as it takes.
fn states(agent_id: &str, groups: &[Vec<Cut<'_>>], most: usize) -> Vec<Vec<u8>> {
    let (mut messages, mut message) = (Vec::new(), StateMessage::new(agent_id, 3));
    for group in groups {
        if !message.add(group, None, most).unwrap() {
            messages.push(message.encode());
            message = StateMessage::new(agent_id, 3);
            assert!(message.add(group, None, most).unwrap());
        }
    }
    messages.extend((!message.is_empty()).then(|| message.encode()));
    messages
}

#[test]
fn a_large_state_is_sent_in_several_messages() {
    let names: Vec<String> = (0..150).map(|i| format!("api-{i}")).collect();
    for (origin, cuts, most, parts) in [
        (long("a", "429"), 0, usize::MAX, 0),
        (long("a", "429"), 30, usize::MAX, 1),
        (long("a", "429"), 150, usize::MAX, 4),
        (long("a", "\"\n\t\\"), 150, usize::MAX, 6),
        (long("\u{1}", "\u{1}"), 150, usize::MAX, 19),
        (long("a", "429"), 150, 8_192, 30),
        (long("a", "429"), 150, 1_024, 150),
    ] {
        let groups: Vec<Vec<Cut<'_>>> =
            names[..cuts].iter().map(|name| vec![cut(name, 1, &origin)]).collect();
        let messages = states(&origin.agent_id, &groups, most);
        assert_eq!(messages.len(), parts);
        assert!(messages.iter().all(|message| message.len() <= most.min(LONGEST)));
        let parsed: Vec<Message> =
            messages.iter().map(|bytes| parse(STATE, bytes).unwrap()).collect();
        let remote: Vec<_> = parsed.iter().flat_map(|message| &message.cuts).collect();
        assert!(remote.iter().map(|(name, _)| name).eq(&names[..groups.len()]));
        assert!(remote.iter().all(|(_, remote)| remote.size == CutTarget::Plain(PLAIN)));
    }
}

#[test]
fn the_cuts_of_a_resource_are_in_one_message() {
    let origin = long("\u{1}", "\u{1}");
    let names = ["a".repeat(100), "b".repeat(1_000)];
    let groups = names
        .each_ref()
        .map(|name| (0..MOST_CUTS as u64).map(|id| cut(name, id, &origin)).collect::<Vec<_>>());
    let messages = states(&origin.agent_id, &groups, usize::MAX);
    let parsed = messages.iter().map(|bytes| parse(STATE, bytes).unwrap().cuts);
    assert_eq!(messages.len(), 2);
    for (cuts, name) in parsed.zip(&names) {
        assert!(cuts.len() == MOST_CUTS && cuts.iter().all(|(resource, _)| resource == name));
    }
}

#[test]
fn a_resource_that_fits_into_no_message_is_told() {
    let (origin, name) = (long("a", "429"), "a".repeat(LONGEST));
    let mut message = StateMessage::new("a", 3);
    let TooLarge { bytes } = message.add(&[cut(&name, 1, &origin)], None, usize::MAX).unwrap_err();
    assert!(bytes > LONGEST && message.is_empty());
    assert_eq!(message.add(&[cut("api", 1, &origin)], None, usize::MAX), Ok(true));
    assert_eq!(message.add(&[cut(&name, 1, &origin)], None, usize::MAX), Ok(false));
    assert_eq!(parse(STATE, &message.encode()).unwrap().cuts.len(), 1);
}

#[test]
fn the_id_of_another_agent_is_truncated_in_a_state_too() {
    let mut origin = long("a", "429");
    origin.agent_id.push_str("more");
    let messages = states(&origin.agent_id, &[vec![cut("api", 1, &origin)]], usize::MAX);
    let message = parse(STATE, &messages[0]).unwrap();
    assert_eq!(message.agent_id, "a".repeat(LONGEST_ID));
    assert_eq!(message.cuts[0].1.origin.agent_id, message.agent_id);
}

#[test]
fn a_pause_is_told_by_its_length_and_age() {
    let origin = Origin { agent_id: "a".into(), ..long("a", "paused") };
    let pause = Pause::new(0xabc, 2_000_000_001, 500_999_999, 7, Arc::new(origin));
    let mut message = StateMessage::new("b", 3);
    let TooLarge { bytes: most } = message.add(&[], Some(("api", &pause, 7)), 100).unwrap_err();
    assert_eq!(message.add(&[], Some(("api", &pause, 7)), most), Ok(true));
    let bytes = message.encode();
    assert!(bytes.len() <= most);
    assert_eq!(
        String::from_utf8(bytes.clone()).unwrap(),
        r#"{"agent_id":"b","instance":"0000000000000003","cuts":[],"pauses":[{"resource":"api","id":"0000000000000abc","length_ms":2001,"age_ms":500,"agent_id":"a","timestamp":"1970-01-01T00:00:00Z"}]}"#,
    );
    let message = parse(PAUSE, &bytes).unwrap();
    let (resource, heard) = &message.pauses[0];
    assert_eq!((resource.as_str(), heard.id), ("api", 0xabc));
    assert_eq!((heard.length, heard.age), (2_001_000_000, 500_000_000));
    assert_eq!(heard.origin.reason, "paused");
    // Of an older agent, which tells of none.
    let old = br#"{"agent_id":"b","instance":"3","cuts":[]}"#;
    assert!(parse(STATE, old).unwrap().pauses.is_empty());
}
