//! Makes a plan smaller for as long as it violates the same invariant.

use crate::{
    AnyError,
    plan::{Kind, Plan},
    play::Report,
};

/// Returns the smallest plan that was found to violate what `plan` violates.
///
/// # Errors
///
/// If the plan violates nothing or cannot be played.
pub(crate) fn shrink(plan: Plan, play: impl Fn(&Plan) -> Result<Report, AnyError>) -> Result<Plan, AnyError> {
    let first = play(&plan)?;
    let invariant = first.violations.first().ok_or("the plan violates nothing")?.invariant.clone();
    let mut plays = 1;
    let mut violates = |plan: &Plan| -> Result<bool, AnyError> {
        plays += 1;
        Ok(play(plan)?.violations.iter().any(|violation| violation.invariant == invariant))
    };
    let mut plan = plan;
    loop {
        let before = size(&plan);
        plan = without_parts(plan, |plan| &mut plan.faults, &mut violates)?;
        plan = without_parts(plan, |plan| &mut plan.calls, &mut violates)?;
        plan = plainer(plan, &mut violates)?;
        plan = without_last_nodes(plan, &mut violates)?;
        eprintln!("{} nodes, {} faults, {} calls", plan.nodes.len(), plan.faults.len(), plan.calls.len());
        if size(&plan) == before {
            break;
        }
    }
    eprintln!("{plays} worlds were played; what is left violates \"{invariant}\"");
    Ok(plan)
}

fn size(plan: &Plan) -> (usize, usize, usize, usize) {
    let strange = plan.nodes.iter().filter(|node| node.kind != Kind::Server).count();
    (plan.nodes.len(), plan.faults.len(), plan.calls.len(), strange)
}

/// Removes parts of a list: first halves, then smaller pieces, at last single ones.
fn without_parts<T: Clone>(
    mut plan: Plan,
    list: impl Fn(&mut Plan) -> &mut Vec<T>,
    violates: &mut impl FnMut(&Plan) -> Result<bool, AnyError>,
) -> Result<Plan, AnyError> {
    let mut piece = list(&mut plan).len().div_ceil(2);
    while piece > 0 {
        let mut from = 0;
        while from < list(&mut plan).len() {
            let mut smaller = plan.clone();
            let items = list(&mut smaller);
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
        if (node.kind, node.bandwidth, node.delay_ms, node.seconds_ahead) == (Kind::Server, None, 0, 0)
            && node.loss == 0.0
        {
            continue;
        }
        (node.kind, node.bandwidth, node.delay_ms, node.seconds_ahead, node.loss) = (Kind::Server, None, 0, 0, 0.0);
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
