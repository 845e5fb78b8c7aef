use super::super::notice::tests::requested;
use super::*;

/// What a workload would write to have people press the wrong thing.
const HOSTILE: &str =
    "<!channel> <https://evil.example|approve> & [approve](https://evil.example) **<at>all</at>** {{{DATE(2026)}}";

fn value(form: Form, text: &str) -> Value {
    serde_json::from_slice(&body(form, &requested(text))).unwrap()
}

#[test]
fn a_webhook_has_type_time_and_data() {
    let notice = requested("ticket 7");
    let golden = r#"{"data":{"action":"http:POST","answer":"interceptor approvals show apr_01kb0000000000000000000000","approval":"apr_01kb0000000000000000000000","approvals":1,"confirm":false,"groups":["crm-approvers"],"host":"host.example","justification":"ticket 7","policies":["writes"],"reasons":["writing is looked at first"],"summary":"POST /ticket 7","target":"graph","until":"2026-11-25T10:00:00.123Z","who":{"callers":[],"client":null,"initiator":1000,"loginuid":null,"pid":7,"principal":null,"process":"ticket 7"},"workload":"crm"},"timestamp":"2026-11-25T09:00:00Z","type":"approval-requested"}"#;
    let golden: Value = serde_json::from_str(golden).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body(Form::Webhook, &notice)).unwrap(), golden);
}

#[test]
fn nothing_of_a_workload_is_markup_in_slack() {
    let message = value(Form::Slack, HOSTILE);
    let blocks = message["blocks"].as_array().unwrap();
    assert_eq!(blocks[0]["text"]["text"], "*Approval wanted: http:POST on graph for crm*");
    assert_eq!(
        blocks[5]["text"]["text"],
        "*they say*  &lt;!channel&gt; &lt;https://evil.example|approve&gt; &amp; [approve](https://evil.example) \
         **&lt;at&gt;all&lt;/at&gt;** {{{DATE(2026)}}"
    );
    for block in blocks {
        let text = &block["text"];
        assert_eq!((&text["type"], &text["verbatim"]), (&json!("mrkdwn"), &json!(true)), "{block}");
        let text = text["text"].as_str().unwrap();
        assert!(!text.contains(['<', '>']) && !text.contains('\n') && text.chars().count() <= 3_000, "{text}");
    }
    assert!(!message["text"].as_str().unwrap().contains("evil"), "the headline is ours");
    // However it is written, it isn't too long for Slack.
    for text in ["&".repeat(9_000), "\u{202e}".repeat(9_000)] {
        let message = value(Form::Slack, &text);
        for block in message["blocks"].as_array().unwrap() {
            assert!(block["text"]["text"].as_str().unwrap().chars().count() <= 3_000, "{block}");
        }
    }
}

#[test]
fn nothing_of_a_workload_is_markup_in_teams() {
    let message = value(Form::Teams, HOSTILE);
    assert_eq!(message["type"], "message");
    let attachment = &message["attachments"][0];
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    let card = &attachment["content"];
    assert_eq!((&card["type"], &card["version"]), (&json!("AdaptiveCard"), &json!("1.4")));
    let rows = card["body"].as_array().unwrap();
    assert_eq!(rows.len(), 8);
    for row in rows {
        assert_eq!(row["type"], "RichTextBlock", "Markdown is read elsewhere: {row}");
        for run in row["inlines"].as_array().unwrap() {
            assert_eq!(run["type"], "TextRun");
            assert!(run["selectAction"].is_null() && !run["text"].as_str().unwrap().contains("{{"), "{run}");
        }
    }
    let said = rows[5]["inlines"][2]["text"].as_str().unwrap();
    assert!(said.contains("{ { {DATE") && said.contains("[approve]("), "{said}");
    assert!(body(Form::Teams, &requested(&"\u{202e}".repeat(9_000))).len() < 28_000, "Teams takes 28 KB");
}
