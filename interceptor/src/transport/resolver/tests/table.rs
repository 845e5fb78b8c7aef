//! Questions and what is answered.

use super::*;

/// What an answer comes to: code, the address or `-`, and the Extended DNS Error's code or `-`.
fn summary(bytes: &[u8]) -> String {
    let message = Message::from_vec(bytes).unwrap();
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert!(!message.metadata.authoritative && !message.metadata.authentic_data);
    let address = message.answers.first().map_or("-".to_owned(), |record| record.data.to_string());
    let negative = message.answers.is_empty()
        && matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
    let is_soa = message.authorities.first().is_some_and(|record| matches!(record.data, RData::SOA(_)));
    assert_eq!(negative, is_soa, "a negative answer has an SOA, others have none");
    let error = match message.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Unknown(15))) {
        Some(EdnsOption::Unknown(_, data)) => u16::from_be_bytes([data[0], data[1]]).to_string(),
        _ => "-".to_owned(),
    };
    format!("{:?} {address} {error}", message.metadata.response_code)
}

#[tokio::test(start_paused = true)]
async fn questions_get_these_answers() {
    use RecordType as T;
    let dir = tempfile::tempdir().unwrap();
    let (resolver, _) = resolver(dir.path(), 100);
    let long_label = format!("{}.com.", "a".repeat(63));
    let cases: &[(&str, T, &str)] = &[
        ("api.example.com.", T::A, "NoError 55.160.0.1 -"),
        ("api.example.com.", T::AAAA, "NoError 2d49:6e74:6572::1 -"),
        ("API.Example.COM.", T::A, "NoError 55.160.0.1 -"),
        ("db.corp.", T::A, "NoError 10.213.0.1 -"),
        ("db.corp.", T::AAAA, "NoError fd49:6e74:6572::1 -"),
        ("mixed.example.com.", T::A, "NoError 10.213.0.2 -"),
        ("fixed.example.com.", T::A, "NoError 55.160.0.2 -"),
        ("_srv.example.com.", T::A, "NoError 55.160.0.3 -"),
        ("api.example.com.", T::HTTPS, "NoError - -"),
        ("api.example.com.", T::SVCB, "NoError - -"),
        ("api.example.com.", T::TXT, "NoError - -"),
        ("api.example.com.", T::MX, "NoError - -"),
        ("api.example.com.", T::CNAME, "NoError - -"),
        ("api.example.com.", T::SRV, "NoError - -"),
        ("api.example.com.", T::ANY, "NoError - -"),
        ("api.example.com.", T::NULL, "NoError - -"),
        ("api.example.com.", T::Unknown(65280), "NoError - -"),
        ("localhost.", T::A, "NoError 127.0.0.1 -"),
        ("localhost.", T::AAAA, "NoError ::1 -"),
        ("localhost.", T::MX, "NoError - -"),
        ("gone.example.com.", T::A, "NXDomain - -"),
        ("empty.example.com.", T::A, "NoError - -"),
        ("ill.example.com.", T::A, "ServFail - 22"),
        ("silent.example.com.", T::A, "ServFail - 22"),
        ("broken.example.com.", T::A, "ServFail - 0"),
        ("broken.example.com.", T::TXT, "ServFail - 0"),
        ("evil.org.", T::A, "NXDomain - 15"),
        ("evil.org.", T::HTTPS, "NXDomain - 15"),
        ("example.com.", T::A, "NXDomain - 15"),
        ("1.0.160.55.in-addr.arpa.", T::PTR, "NXDomain - 15"),
        (".", T::NS, "NXDomain - 15"),
        ("com.", T::DS, "NXDomain - 15"),
        ("-a.example.com.", T::A, "NXDomain - 15"),
        ("1.2.3.4.", T::A, "NXDomain - 15"),
        (&long_label, T::A, "NXDomain - 15"),
        ("api\\.example.com.", T::A, "NXDomain - 15"),
        ("a\\000b.example.com.", T::A, "NXDomain - 15"),
        ("a\\032b.example.com.", T::A, "NXDomain - 15"),
        ("*.example.com.", T::A, "NXDomain - 15"),
    ];
    for (name, qtype, expected) in cases {
        let question = question(name, *qtype, true);
        let reply = resolver.reply(&question.to_vec().unwrap(), Via::Udp).await.unwrap();
        assert_eq!(summary(&reply), *expected, "{name} {qtype}");
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!((reply.metadata.id, reply.metadata.recursion_available), (0x1234, true));
        assert!(reply.metadata.recursion_desired && !reply.metadata.truncation);
        // The question comes back letter by letter: clients compare it (draft-vixie-dnsext-dns0x20).
        assert_eq!(reply.queries[0].name.to_ascii(), question.queries[0].name.to_ascii());
    }
}

#[tokio::test]
async fn messages_that_break_the_rules_get_these_codes() {
    let dir = tempfile::tempdir().unwrap();
    let (resolver, log) = resolver(dir.path(), 100);
    let plain = || question("api.example.com.", RecordType::A, false);
    let changed = |change: fn(&mut Message)| {
        let mut message = plain();
        change(&mut message);
        message.to_vec().unwrap()
    };
    let patched = |at: usize, byte: u8| {
        let mut bytes = plain().to_vec().unwrap();
        bytes[at] = byte;
        bytes
    };
    let whole = plain().to_vec().unwrap();
    let cut = whole[..whole.len() - 3].to_vec();
    // The name's first label points at itself.
    let looping = [&whole[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
    let edns_v1 = changed(|message| {
        let mut edns = Edns::new();
        edns.set_version(1);
        message.set_edns(edns);
    });
    let two_opts = {
        let one = question("api.example.com.", RecordType::A, true).to_vec().unwrap();
        let opt = one[one.len() - 11..].to_vec();
        let mut bytes = [one, opt].concat();
        bytes[11] = 2;
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, Option<ResponseCode>)> = vec![
        ("nothing", vec![], None),
        ("half a header", whole[..11].to_vec(), None),
        ("an answer", patched(2, 0x81), None),
        ("a header alone", [&whole[..4], &[0; 8]].concat(), Some(ResponseCode::FormErr)),
        ("cut off", cut, Some(ResponseCode::FormErr)),
        ("a looping name", looping, Some(ResponseCode::FormErr)),
        ("more questions than there are", patched(5, 2), Some(ResponseCode::FormErr)),
        ("65,535 additionals", [&whole[..10], &[255, 255], &whole[12..]].concat(), Some(ResponseCode::FormErr)),
        ("two questions", changed(|message| message.queries.push(Question::new())), Some(ResponseCode::FormErr)),
        ("two OPTs", two_opts, Some(ResponseCode::FormErr)),
        (
            "an answer section",
            changed(|message| {
                let data = RData::A(hickory_proto::rr::rdata::A(Ipv4Addr::LOCALHOST));
                message.add_answer(hickory_proto::rr::Record::from_rdata(Name::root(), 1, data));
            }),
            Some(ResponseCode::FormErr),
        ),
        ("class CH", changed(|message| message.queries[0].query_class = DNSClass::CH), Some(ResponseCode::Refused)),
        ("class ANY", changed(|message| message.queries[0].query_class = DNSClass::ANY), Some(ResponseCode::Refused)),
        ("STATUS", patched(2, 0x11), Some(ResponseCode::NotImp)),
        ("NOTIFY", patched(2, 0x21), Some(ResponseCode::NotImp)),
        ("UPDATE", patched(2, 0x29), Some(ResponseCode::NotImp)),
        ("opcode 15", patched(2, 0x79), Some(ResponseCode::NotImp)),
        ("EDNS 1", edns_v1, Some(ResponseCode::BADVERS)),
    ];
    for (what, bytes, expected) in cases {
        let reply = resolver.reply(&bytes, Via::Udp).await;
        let Some(expected) = expected else {
            assert_eq!(reply, None, "{what}");
            continue;
        };
        let reply = reply.unwrap();
        assert_eq!(reply[..2], [0x12, 0x34], "{what}");
        let reply = Message::from_vec(&reply).unwrap();
        // As numbers: 16 is BADVERS and BADSIG.
        assert_eq!(u16::from(reply.metadata.response_code), u16::from(expected), "{what}");
        assert!(reply.answers.is_empty(), "{what}");
    }
    assert!(log.lock().unwrap().is_empty(), "a broken question was decided");
}

#[tokio::test]
async fn a_name_is_looked_up_only_after_it_was_admitted_and_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let (resolver, log) = resolver(dir.path(), 100);
    for (name, qtype) in [
        ("evil.org.", RecordType::A),
        ("api.example.com.", RecordType::HTTPS),
        ("api.example.com.", RecordType::A),
        ("api.example.com.", RecordType::AAAA),
    ] {
        resolver.reply(&question(name, qtype, true).to_vec().unwrap(), Via::Udp).await.unwrap();
    }
    let expected = [
        "admit evil.org A",
        "admit api.example.com HTTPS",
        "admit api.example.com A",
        "lookup api.example.com",
        "admit api.example.com AAAA",
    ];
    assert_eq!(*log.lock().unwrap(), expected);
    let stored = std::fs::read_to_string(dir.path().join("names")).unwrap();
    assert_eq!(stored, "public 1 api.example.com\n");
}

#[tokio::test]
async fn a_denial_says_why_to_those_who_speak_edns() {
    let dir = tempfile::tempdir().unwrap();
    let (resolver, _) = resolver(dir.path(), 1);
    let reply = resolver.reply(&question("evil.org.", RecordType::A, true).to_vec().unwrap(), Via::Udp).await.unwrap();
    let text = String::from_utf8_lossy(&reply).into_owned();
    assert!(text.contains("not-a-target: no target has this host; ask the operator"), "{text}");
    let reply = resolver.reply(&question("evil.org.", RecordType::A, false).to_vec().unwrap(), Via::Udp).await.unwrap();
    assert_eq!(Message::from_vec(&reply).unwrap().edns, None);

    resolver.reply(&question("api.example.com.", RecordType::A, true).to_vec().unwrap(), Via::Udp).await.unwrap();
    let reply = resolver.reply(&question("db.corp.", RecordType::A, true).to_vec().unwrap(), Via::Udp).await.unwrap();
    assert!(String::from_utf8_lossy(&reply).contains("too-many-names"));
    assert_eq!(summary(&reply), "ServFail - 0");
}

#[tokio::test]
async fn an_answer_over_udp_is_never_longer_than_the_asker_takes() {
    let longest = format!("{0}.{0}.{0}.{1}.example.com.", "a".repeat(60), "b".repeat(54));
    let mut query = question(&longest, RecordType::A, true);
    // What the smallest asker takes.
    query.edns.as_mut().unwrap().set_max_payload(512);
    let message::Read::Query(query) = message::read(&query.to_vec().unwrap()) else { panic!("refused") };
    let why = "é".repeat(4000);
    for (via, limit) in [(Via::Udp, 512), (Via::Tcp, 65535)] {
        for answer in [
            Answer::NoSuchName(Some(Why::Blocked(why.clone()))),
            Answer::Failure(Why::Fault(why.clone())),
            Answer::Empty,
        ] {
            let reply = query.reply(answer, via);
            assert!(reply.len() <= limit && reply.len() < 600, "{}", reply.len());
            assert!(!Message::from_vec(&reply).unwrap().metadata.truncation);
        }
    }
    // Without EDNS the limit is 512 bytes; a name with much to escape still fits.
    let query = question(&longest, RecordType::AAAA, false);
    let message::Read::Query(query) = message::read(&query.to_vec().unwrap()) else { panic!("refused") };
    assert!(query.reply(query.addresses(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST), Via::Udp).len() <= 512);
}

#[test]
fn what_is_public_is_what_guards_take_for_public() {
    let global = "8.8.8.8 100.63.255.255 100.128.0.0 172.15.0.1 172.32.0.1 192.0.0.9 198.17.0.1 198.20.0.1 \
                  2606:4700::1 2001:200::1 2001:4860::8888 55.160.0.1 2d49:6e74:6572::1 64:ff9b::808:808 2002:808:808::1";
    let special = "0.0.0.0 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 169.254.169.254 172.16.0.1 172.31.255.255 \
                   192.0.0.1 192.0.2.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 \
                   240.0.0.1 255.255.255.255 :: ::1 2001:db8::1 2001:2::1 fe80::1 fd00::1 ff02::1 100::1 3fff::1 \
                   ::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1::1 10.213.0.1 fd49:6e74:6572::1 64:ff9b:1::1";
    for text in global.split_whitespace() {
        assert!(reach::is_global(text.parse().unwrap()), "{text}");
    }
    for text in special.split_whitespace() {
        assert!(!reach::is_global(text.parse().unwrap()), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_get_a_long_answer(random in proptest::collection::vec(any::<u8>(), 0..600), flips in proptest::collection::vec((0..60_usize, any::<u8>()), 0..6), real in any::<bool>()) {
        let mut bytes = random;
        if real {
            bytes = question("evil.org.", RecordType::A, true).to_vec().unwrap();
            for (at, byte) in flips {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
        }
        let why = || Why::Blocked("w".repeat(500));
        let reply = match message::read(&bytes) {
            message::Read::Nothing => return Ok(()),
            message::Read::Refusal(reply) => reply,
            message::Read::Query(query) => {
                drop(query.hostname());
                query.reply(Answer::NoSuchName(Some(why())), Via::Udp)
            }
        };
        prop_assert!(reply.len() <= usize::from(message::UDP_MAX));
        prop_assert!(reply.len() <= bytes.len() + 300);
        prop_assert!(reply[2] & 0x80 != 0 && reply[..2] == bytes[..2]);
    }
}
