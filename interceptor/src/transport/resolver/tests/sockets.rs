//! UDP and TCP on loopback.

use super::*;

async fn ask(socket: &tokio::net::UdpSocket, name: &str) -> Message {
    socket.send(&question(name, RecordType::A, true).to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 2048];
    let count = tokio::time::timeout(Duration::from_secs(30), socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..count]).unwrap()
}

#[tokio::test]
async fn udp_answers_come_from_the_address_that_was_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (resolver, _) = resolver(dir.path(), 100);
    let (v4, v6) = (udp_socket("0.0.0.0:0"), udp_socket("[::1]:0"));
    let (v4_port, v6_port) = (v4.local_addr().unwrap().port(), v6.local_addr().unwrap().port());
    let serving = tokio::spawn(resolver.serve_udp(vec![v4, v6]));
    for (from, to) in [
        ("127.0.0.1:0", SocketAddr::from(([127, 0, 0, 1], v4_port))),
        ("127.0.0.1:0", SocketAddr::from(([127, 77, 5, 3], v4_port))),
        ("[::1]:0", SocketAddr::from((Ipv6Addr::LOCALHOST, v6_port))),
    ] {
        // A connected socket hears only whom it asked.
        let socket = tokio::net::UdpSocket::bind(from).await.unwrap();
        socket.connect(to).await.unwrap();
        let reply = ask(&socket, "api.example.com.").await;
        assert_eq!(reply.answers[0].data.to_string(), "55.160.0.1", "{to}");
    }
    serving.abort();
}

#[tokio::test]
async fn udp_goes_on_when_askers_leave_and_send_rubbish() {
    let dir = tempfile::tempdir().unwrap();
    let (resolver, _) = resolver(dir.path(), 100);
    let socket = udp_socket("127.0.0.1:0");
    let address = socket.local_addr().unwrap();
    let serving = tokio::spawn(resolver.serve_udp(vec![socket]));
    for _ in 0..20 {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        gone.connect(address).unwrap();
        gone.send(&question("api.example.com.", RecordType::A, true).to_vec().unwrap()).unwrap();
        gone.send(&[]).unwrap();
        gone.send(&vec![7; 9000]).unwrap();
        // The socket's buffer holds only some of these.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    assert_eq!(ask(&socket, "db.corp.").await.answers.len(), 1);
    assert!(!serving.is_finished());
    serving.abort();
}

#[tokio::test]
async fn questions_under_way_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (resolver, log) = resolver(dir.path(), 1000);
    let socket = udp_socket("127.0.0.1:0");
    let address = socket.local_addr().unwrap();
    let serving = tokio::spawn(resolver.clone().serve_udp(vec![socket]));
    let flood = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    flood.connect(address).await.unwrap();
    for index in 0..2 * IN_FLIGHT {
        // Nobody answers these.
        let name = format!("silent{index}.example.com.");
        flood.send(&question(&name, RecordType::A, true).to_vec().unwrap()).await.unwrap();
    }
    while resolver.in_flight.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = log.lock().unwrap().iter().filter(|line| line.starts_with("lookup")).count();
    assert_eq!(asked, IN_FLIGHT);
    // Whoever stops serving lets go of all of it.
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    while resolver.in_flight.available_permits() < IN_FLIGHT {
        tokio::task::yield_now().await;
    }
}

async fn ask_tcp(stream: &mut tokio::io::DuplexStream, name: &str) -> Message {
    let bytes = question(name, RecordType::A, true).to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

#[tokio::test]
async fn tcp_answers_one_question_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let (resolver, _) = resolver(dir.path(), 100);
    let (mut client, server) = tokio::io::duplex(1024);
    let serving = tokio::spawn(resolver.serve_tcp(server));
    assert_eq!(ask_tcp(&mut client, "api.example.com.").await.answers[0].data.to_string(), "55.160.0.1");
    assert_eq!(ask_tcp(&mut client, "evil.org.").await.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(ask_tcp(&mut client, "db.corp.").await.answers[0].data.to_string(), "10.213.0.1");
    drop(client);
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn tcp_ends_for_who_is_slow_or_breaks_the_rules() {
    let dir = tempfile::tempdir().unwrap();
    let (resolver, _) = resolver(dir.path(), 100);
    let mut half = vec![0, 40];
    half.extend([0; 20]);
    let too_long = vec![0x20, 0];
    let nothing = vec![];
    let an_answer = [&[0, 12, 0x12, 0x34, 0x81][..], &[0; 9]].concat();
    for (what, bytes, seconds) in
        [("half", half, 10), ("too long", too_long, 0), ("idle", nothing, 10), ("an answer", an_answer, 0)]
    {
        let (mut client, server) = tokio::io::duplex(8192);
        let start = tokio::time::Instant::now();
        let serving = tokio::spawn(resolver.clone().serve_tcp(server));
        client.write_all(&bytes).await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        serving.await.unwrap();
        assert_eq!((rest.len(), start.elapsed().as_secs()), (0, seconds), "{what}");
    }
}
