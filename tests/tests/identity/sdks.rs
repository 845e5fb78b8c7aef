//! The SDKs of Python and Node, unmodified, through the daemon.

use anyhow::{Context, Result, ensure};
use interceptor::record::event::{Verdict, What};
use interceptor_tests::entra::directory::CONTOSO;
use interceptor_tests::entra::flow::Flow;
use interceptor_tests::{recorded, require_root};

use super::fixture::{POLICY, Scene, Sdk};

/// Signs in, and checks that everybody agrees who it is: the SDK, Graph, and the record.
fn pass(scene: &Scene, sdk: Sdk, flow: Flow) -> Result<()> {
    let (mark, calls) = (recorded::last(&scene.daemon.database())?, scene.graph.received().len());
    let told = scene.sign_in(sdk, flow)?;
    let operations = recorded::operations(&scene.daemon.database(), mark)?;
    let seen = format!("{sdk:?} {flow:?}: {told:?}\n{operations:?}\n{}", scene.daemon.log());
    ensure!(told.error.is_none() && told.plain == Some(200), "{seen}");
    ensure!(flow == Flow::Refresh || told.pipeline == Some(200), "{seen}");
    let caller = scene.graph.received().split_off(calls).into_iter().next_back().and_then(|one| one.caller);
    let caller = caller.with_context(|| format!("nobody called: {seen}"))?;
    ensure!(caller.oid == flow.principal() && caller.appid == flow.client(), "{seen}, {caller:?}");

    recorded::wait_for(&scene.daemon.database(), mark, |one| {
        one.action == "http:GET" && one.target.as_deref() == Some("graph")
    })?;
    let principal = format!("{}/{}", CONTOSO.id, flow.principal());
    let mut identities = Vec::new();
    for (_, event) in recorded::events(&scene.daemon.database(), mark)? {
        if let What::OperationDecided { action, target, identity, verdict, summary, .. } = event.what {
            let is_graph = target.as_ref().is_some_and(|target| target.as_str() == "graph");
            if action == "http:GET" && is_graph {
                ensure!(verdict == Verdict::Allow, "{seen}");
                identities.push(identity.with_context(|| format!("`{summary}` names nobody: {seen}"))?);
            }
        }
    }
    ensure!(!identities.is_empty(), "{seen}");
    for identity in identities {
        ensure!(identity.principal.as_str() == principal, "{identity:?}: {seen}");
        ensure!(identity.client.is_some_and(|client| client.to_string() == flow.client()), "{identity:?}: {seen}");
    }
    Ok(())
}

/// Arc's flows have a test of their own: there is one place for its secrets on a host.
fn elsewhere(flow: &Flow) -> bool {
    !matches!(flow, Flow::Arc | Flow::ArcUser)
}

#[test]
fn every_sign_in_of_python_is_observed() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(POLICY, "")?;
    for flow in Flow::ALL.into_iter().filter(elsewhere) {
        pass(&scene, Sdk::Python, flow)?;
    }
    scene.finish()
}

#[test]
fn every_sign_in_of_node_is_observed() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(POLICY, "")?;
    for flow in Flow::ALL.into_iter().filter(elsewhere) {
        pass(&scene, Sdk::Node, flow)?;
    }
    scene.finish()
}

/// At an endpoint on the workload's own loopback, which the daemon dials itself.
#[test]
fn identities_of_arc_are_observed() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(POLICY, "")?.with_arc()?;
    for (sdk, flow) in [Sdk::Python, Sdk::Node].into_iter().flat_map(|sdk| [(sdk, Flow::Arc), (sdk, Flow::ArcUser)]) {
        pass(&scene, sdk, flow)?;
    }
    scene.finish()
}

/// 403 is final for an SDK; other refusals make it try for more than a minute.
#[test]
fn a_managed_identity_that_is_denied_fails_at_once() -> Result<()> {
    require_root!(Ok(()));
    let policy = POLICY.replace(r#"@id("tokens") permit"#, r#"@id("tokens") forbid"#);
    let scene = Scene::new(&policy, "")?;
    for sdk in [Sdk::Python, Sdk::Node] {
        let told = scene.sign_in(sdk, Flow::ManagedSystem)?;
        ensure!(told.error.is_some() && told.seconds < 20.0, "{sdk:?}: {told:?}");
        ensure!(scene.entra.issued().is_empty(), "{sdk:?}: {:?}", scene.entra.issued());
    }
    scene.finish()
}
