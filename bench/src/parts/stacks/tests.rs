use super::*;

/// The name of a part of these threads.
fn named(threads: Threads, word: &str) -> &'static str {
    PARTS.iter().find(|part| part.is_of(threads) && part.name.contains(word)).unwrap().name
}

#[test]
fn a_sample_counts_for_one_part() {
    let text = "worker-0 \n\t  ffff1 tcp_sendmsg\n\t  ffff2 do_writev\n\t  ffff3 entry_SYSCALL_64\n\t  5 rustls::conn::write\n\n\
                worker-1 \n\t  1 malloc\n\t  2 cedar_policy_core::evaluator::Evaluator::interpret\n\n\
                worker-1 \n\t  1 memcpy\n\t  2 interceptor::policy::decide::decide\n\t  3 hyper::proto::h1::poll\n\n\
                worker-1 \n\t  1 memcpy\n\t  2 tokio::task::poll\n\t  3 hyper::proto::h1::poll\n\n\
                worker-1 \n\t  1 interceptor::transport::http::meter::poll\n\t  2 hyper::proto::h1::poll\n\n\
                worker-1 \n\n\
                tokio-rt-worker \n\t  1 interceptor::detect::secrets::body\n\n\
                record \n\t  1 memcpy\n\t  2 fts5WriteFlush\n\t  3 sqlite3_step\n\n";
    let counts = count(text);
    let (workers, others, writer) = (Threads::Workers, Threads::Others, Threads::Writer);
    let expected =
        ["kernel's writes", "malloc", "deciding", "tokio", "rest of the walk"].map(|word| (named(workers, word), 1));
    assert_eq!(counts[&workers], expected.into());
    assert_eq!(counts[&others], [(named(others, "secrets"), 1)].into());
    assert_eq!(counts[&writer], [(named(writer, "full-text"), 1)].into());
}

#[test]
fn every_kind_of_thread_has_a_part_for_the_rest() {
    for threads in Threads::ALL {
        assert!(!part(threads, &["nobody knows"]).is_empty(), "{threads:?}");
    }
}
