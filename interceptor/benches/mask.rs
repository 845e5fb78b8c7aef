//! How fast masks are on one core, beside serde_json parsing and writing the same document: `cargo bench --bench mask`.

#![expect(clippy::expect_used, reason = "a benchmark that can't go on ends")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use interceptor::config::Settings;
use interceptor::mask::{Masker, Masks, Plan};

/// A page of users as Microsoft Graph answers it, in bytes about 4 MiB.
fn document() -> Vec<u8> {
    let mut text = String::from("{\"@odata.context\":\"https://graph.microsoft.com/v1.0/$metadata#users\",\"value\":[");
    for number in 0_u64.. {
        if number > 0 {
            text.push(',');
        }
        let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        text += &format!(
            "{{\"id\":\"{:08x}-44d7-43e1-9a83-{:012x}\",\"displayName\":\"Person Number {number}\",\"givenName\":\"Person\",\
             \"surname\":\"Number\",\"jobTitle\":\"Senior Program Manager\",\"mail\":\"person{number}@contoso.example\",\
             \"mobilePhone\":\"+1 425 555 {:04}\",\"officeLocation\":\"18/{}\",\"preferredLanguage\":\"en-US\",\
             \"userPrincipalName\":\"person{number}@contoso.example\",\"accountEnabled\":true,\"createdDateTime\":\
             \"2024-01-15T10:20:30Z\",\"employeeId\":\"{number:08}\",\"signInActivity\":{{\"lastSignInDateTime\":\
             \"2024-11-23T09:02:11Z\",\"lastSignInRequestId\":\"{:08x}-0000-4000-8000-00000000abcd\"}},\"aboutMe\":\
             \"Works on the next version of everything; likes long walks, short meetings and the colour blue.\",\
             \"proxyAddresses\":[],\"usageScore\":{}.{:03}}}",
            id as u32,
            id >> 16,
            number % 10_000,
            number % 4000,
            (id >> 32) as u32,
            number % 100,
            number % 1000
        );
        if text.len() > 4 << 20 {
            break;
        }
    }
    text += "]}";
    text.into_bytes()
}

/// The same without anything that a detector finds: what most answers are.
fn harmless(document: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(document);
    text.replace("@contoso.example", " at contoso").replace("\"+1 425", "\"425").into_bytes()
}

fn plan(mask: &str) -> Arc<Plan> {
    let config = format!("[[mask]]\nname = \"m\"\n{mask}");
    let settings = Settings::parse("/etc/interceptor/config.toml", &config).expect("the configuration is sound");
    let masks = Masks::new(&settings.masks).expect("the rules compile");
    Arc::new(masks.plan(&[settings.masks[0].name.clone()]).expect("the mask exists"))
}

fn mask(plan: &Arc<Plan>, document: &[u8], out: &mut Vec<u8>) {
    let mut masker = Masker::new(Arc::clone(plan), Some("application/json"), [7; 32]).expect("JSON can be masked");
    // As the body comes from a connection, and goes on to the next.
    for chunk in document.chunks(16 * 1024) {
        out.clear();
        masker.push(chunk, out).expect("it is JSON");
        black_box(&out);
    }
    masker.finish(out).expect("it is complete");
}

fn benchmark(criterion: &mut Criterion) {
    const ALL: &str = "detect = [\"email\", \"payment-card\", \"us-ssn\", \"iban\", \"phone\", \"jwt\", \"pem\", \"api-key\", \"secret\"]";
    let document = document();
    let harmless = harmless(&document);
    let three = plan("json = [\"$..mail\", \"$.value[*].mobilePhone\", \"$.value[*].userPrincipalName\"]");
    let all = plan(ALL);
    let mut group = criterion.benchmark_group("mask");
    group.throughput(Throughput::Bytes(document.len() as u64)).sample_size(20);
    let mut out = Vec::new();
    group.bench_function("json, 3 paths", |bencher| bencher.iter(|| mask(&three, &document, &mut out)));
    group.bench_function("json, all detectors", |bencher| bencher.iter(|| mask(&all, &document, &mut out)));
    group.throughput(Throughput::Bytes(harmless.len() as u64));
    group.bench_function("json, all detectors, nothing found", |bencher| {
        bencher.iter(|| mask(&all, &harmless, &mut out))
    });
    group.throughput(Throughput::Bytes(document.len() as u64));
    group.bench_function("serde_json, parsed and written", |bencher| {
        bencher.iter(|| {
            let value: serde_json::Value = serde_json::from_slice(&document).expect("it is JSON");
            black_box(serde_json::to_vec(&value).expect("it can be written"))
        });
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
