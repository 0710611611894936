//! Makes a plan smaller for as long as it violates the same invariant.

use crate::{
    AnyError,
    plan::{Kind, PackageOperation, Plan},
    play_in_a_process, violates, without_known,
};

/// Returns the smallest plan that was found to violate what `plan` violates. Violations that are known do not count.
///
/// # Errors
///
/// If the plan violates nothing or cannot be played.
pub(crate) fn shrink(plan: Plan) -> Result<Plan, AnyError> {
    let first = without_known(&plan, play_in_a_process(&plan)?)?;
    let violation = first.violations.into_iter().next().ok_or("the plan violates nothing that is not known")?;
    let mut plays = 1;
    let mut still = |plan: &Plan| -> Result<bool, AnyError> {
        plays += 1;
        Ok(violates(&without_known(plan, play_in_a_process(plan)?)?, &violation))
    };
    let mut plan = plan;
    loop {
        let before = serde_json::to_string(&plan)?;
        plan = without_parts(plan, |plan| Some(&mut plan.faults), &mut still)?;
        plan = without_parts(plan, |plan| Some(&mut plan.calls), &mut still)?;
        plan = without_parts(plan, |plan| Some(&mut plan.package_calls), &mut still)?;
        for at in 0..plan.faults.len() {
            plan = without_parts(plan, |plan| plan.faults.get_mut(at).map(|fault| &mut fault.nodes), &mut still)?;
        }
        plan = plainer(plan, &mut still)?;
        plan = without_last_nodes(plan, &mut still)?;
        eprintln!("{} nodes, {} faults, {} calls", plan.nodes.len(), plan.faults.len(), plan.calls.len());
        if serde_json::to_string(&plan)? == before {
            break;
        }
    }
    eprintln!("{plays} worlds were played; what is left violates \"{}\"", violation.invariant);
    Ok(plan)
}

/// Removes parts of a list: first halves, then smaller pieces, at last single ones.
fn without_parts<T: Clone>(
    mut plan: Plan,
    list: impl Fn(&mut Plan) -> Option<&mut Vec<T>>,
    violates: &mut impl FnMut(&Plan) -> Result<bool, AnyError>,
) -> Result<Plan, AnyError> {
    let len = |plan: &mut Plan| list(plan).map_or(0, |items| items.len());
    let mut piece = len(&mut plan).div_ceil(2);
    while piece > 0 {
        let mut from = 0;
        while from < len(&mut plan) {
            let mut smaller = plan.clone();
            let Some(items) = list(&mut smaller) else { break };
            let to = (from + piece).min(items.len());
            items.drain(from..to);
            if violates(&smaller)? {
                plan = smaller;
            } else {
                from += piece;
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    Ok(plan)
}

/// Replaces nodes by plain servers with good links.
fn plainer(mut plan: Plan, violates: &mut impl FnMut(&Plan) -> Result<bool, AnyError>) -> Result<Plan, AnyError> {
    for at in 0..plan.nodes.len() {
        let mut smaller = plan.clone();
        let Some(node) = smaller.nodes.get_mut(at) else { continue };
        if (node.kind, node.bandwidth, node.delay_ms, node.seconds_ahead, node.known) == (Kind::Server, None, 0, 0, 3)
            && node.loss == 0.0
        {
            continue;
        }
        (node.kind, node.bandwidth, node.delay_ms, node.seconds_ahead, node.loss) = (Kind::Server, None, 0, 0, 0.0);
        (node.known, node.friend) = (3, None);
        if violates(&smaller)? {
            plan = smaller;
        }
    }
    Ok(plan)
}

/// Removes nodes from the end, with their calls and faults.
fn without_last_nodes(
    mut plan: Plan,
    violates: &mut impl FnMut(&Plan) -> Result<bool, AnyError>,
) -> Result<Plan, AnyError> {
    let mut piece = plan.nodes.len() / 2;
    while piece > 0 {
        let mut smaller = plan.clone();
        let left = smaller.nodes.len() - piece;
        smaller.nodes.truncate(left);
        smaller.calls.retain(|call| call.by < left);
        smaller.package_calls.retain(|call| {
            let of = if let PackageOperation::Fetch { of } = call.what { of } else { call.by };
            call.by.max(of) < left
        });
        for fault in &mut smaller.faults {
            fault.nodes.retain(|node| *node < left);
        }
        smaller.faults.retain(|fault| !fault.nodes.is_empty());
        if left >= 2 && violates(&smaller)? {
            plan = smaller;
        } else {
            piece /= 2;
        }
        piece = piece.min(plan.nodes.len() / 2);
    }
    Ok(plan)
}
