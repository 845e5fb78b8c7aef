//! The list of open questions: of each as much as tells it from others, and of each workload some, so that none can fill
//! the list with its own. `show` has all of one.

use std::collections::HashMap;

use crate::control::wire::FRAME;
use crate::ids::WorkloadName;
use crate::record::approval::Approval;

/// How many bytes of JSON the list may be.
const ROOM: usize = FRAME * 3 / 4;

/// The most characters of one text that a workload wrote.
const MOST: usize = 300;

/// What stands at the end of a text that was cut.
const CUT: char = '…';

/// The open questions as they are listed: at most `limit`, and as many as fit an answer. Where that isn't all, each workload's
/// oldest are in, by turns. The oldest come first.
pub(super) fn listed(open: Vec<Approval>, limit: u32) -> Vec<Approval> {
    let mut counts: HashMap<WorkloadName, usize> = HashMap::new();
    let turn = |approval: Approval| {
        let count = counts.entry(approval.request.workload.clone()).or_default();
        *count += 1;
        (*count, clipped(approval))
    };
    let mut turns: Vec<(usize, Approval)> = open.into_iter().map(turn).collect();
    turns.sort_by_key(|(turn, approval)| (*turn, approval.request.approval));
    turns.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut room = ROOM;
    let fits = |approval: &Approval| {
        let size = serde_json::to_vec(approval).map_or(usize::MAX, |json| json.len().saturating_add(1));
        let Some(left) = room.checked_sub(size) else { return false };
        room = left;
        true
    };
    let mut list: Vec<Approval> = turns.into_iter().map(|(_, approval)| approval).take_while(fits).collect();
    list.sort_by_key(|approval| approval.request.approval);
    list
}

/// A question whose texts are short.
fn clipped(mut approval: Approval) -> Approval {
    let request = &mut approval.request;
    let shape = &mut request.shape;
    [&mut request.summary, &mut request.action, &mut shape.method, &mut shape.path].into_iter().for_each(clip);
    request.justification.iter_mut().for_each(clip);
    let mut room = MOST;
    let short = shape.keys.iter().take_while(|key| {
        let left = room.checked_sub(key.len());
        room = left.unwrap_or_default();
        left.is_some()
    });
    let fits = short.count();
    if fits < shape.keys.len() {
        shape.keys.truncate(fits);
        shape.keys.push(CUT.into());
    }
    if let Some(process) = &mut request.process {
        process.exe = process.exe.take().filter(|exe| exe.as_os_str().len() <= MOST);
    }
    approval
}

fn clip(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(MOST) {
        text.truncate(at);
        text.push(CUT);
    }
}

#[cfg(test)]
pub(super) mod tests;
