//! A notification as its receiver wants it. What a workload chose can be in any text of it, so none of it is markup where
//! it arrives: no link, no mention, no other line.

use serde_json::{Value, json};

use super::notice::Notice;
use crate::config::Form;

/// The notification in this form, as JSON.
pub(super) fn body(form: Form, notice: &Notice) -> Vec<u8> {
    let value = match form {
        Form::Webhook => webhook(notice),
        Form::Slack => slack(notice),
        Form::Teams => teams(notice),
    };
    value.to_string().into_bytes()
}

/// Our own: the three members that Standard Webhooks recommends.
fn webhook(notice: &Notice) -> Value {
    json!({ "type": notice.kind(), "timestamp": notice.at, "data": notice.data })
}

/// A message of an incoming webhook. `verbatim` keeps Slack from making links and mentions of plain text, and only `&`, `<`
/// and `>` begin markup that does (docs.slack.dev, formatting message text). A section a fact: a text may have 3,000
/// characters, and a workload must not be able to have a message refused.
fn slack(notice: &Notice) -> Value {
    let section =
        |text: String| json!({ "type": "section", "text": { "type": "mrkdwn", "verbatim": true, "text": text } });
    let title = escaped(&notice.title);
    let facts = notice.facts.iter().map(|(label, text)| section(format!("*{label}*  {}", escaped(text))));
    let blocks: Vec<Value> = std::iter::once(section(format!("*{title}*"))).chain(facts).collect();
    json!({ "text": title, "blocks": blocks })
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// An Adaptive Card in the envelope that the webhook of a Teams workflow takes. Text blocks and fact sets read Markdown, text
/// runs don't (Adaptive Cards, schema explorer, TextRun), so there is nothing to escape but `{{`, which begins a date
/// function.
fn teams(notice: &Notice) -> Value {
    let run = |text: &str, bold: bool| {
        let weight = if bold { "Bolder" } else { "Default" };
        json!({ "type": "TextRun", "text": apart(text), "weight": weight })
    };
    let block = |inlines: Vec<Value>| json!({ "type": "RichTextBlock", "inlines": inlines });
    let facts =
        notice.facts.iter().map(|(label, text)| block(vec![run(label, true), run("  ", false), run(text, false)]));
    let rows: Vec<Value> = std::iter::once(block(vec![run(&notice.title, true)])).chain(facts).collect();
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": rows,
            },
        }],
    })
}

fn apart(text: &str) -> String {
    let mut apart = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '{' && apart.ends_with('{') {
            apart.push(' ');
        }
        apart.push(c);
    }
    apart
}

#[cfg(test)]
mod tests;
