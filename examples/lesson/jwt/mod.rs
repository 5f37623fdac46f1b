//! Tokens: what is in one, what it costs to check, why it cannot be taken back, and what each way
//! of taking it back costs instead. Then five services behind one gateway.
//!
//! Start at [`revocation`], which is what the chapter is about; [`token`] is what everybody here
//! calls a token, [`api`] the service that gives and takes them.

mod anatomy;
mod api;
mod cost;
mod gateway;
mod revocation;
mod token;

use crate::harness::{Balancer, Chapter, Findings, Outcome, Replica, Stage};
use crate::store::Store;

pub const CHAPTER: Chapter = Chapter {
    name: "jwt",
    title: "Tokens",
    about: "A token is opened without its key, forged in seven ways, stolen, and taken back in four \
            ways over three replicas. Then one gateway checks it for five services.",
    guess: "A token that lives 24 hours is stolen at ten. The password is changed at one minute past \
            ten. Until when does the token work?",
    roles: &[
        ("jwt-api", |setup| Box::pin(api::serve(setup))),
        ("jwt-database", |setup| Box::pin(api::database::serve(setup))),
        ("jwt-service", |setup| Box::pin(gateway::service::serve(setup))),
        ("jwt-gateway", |setup| Box::pin(gateway::serve(setup))),
    ],
    run: |stage| Box::pin(run(stage)),
};

/// Any replica will do: none of them remembers anybody.
const TOML: &str = r#"
[pool.api]
policy = "round_robin"
backends = BACKENDS
health.path = "/healthz"
health.interval = "100ms"
"#;

/// Three replicas of the API, with what they share.
struct Scene {
    secret: String,
    store: Store,
    database: Replica,
    replicas: Vec<Replica>,
    balancer: Balancer,
}

async fn run(stage: &Stage) -> Outcome<Findings> {
    let mut findings = Findings::default();
    let secret = token::random();
    let store = stage.store().await?;
    let database = Replica::start("jwt-database", "database", ()).await?;
    let order = api::Order { secret: secret.clone(), store: store.url().into(), database: database.address };
    let mut replicas = Vec::new();
    for name in ["r1", "r2", "r3"] {
        replicas.push(Replica::start("jwt-api", name, &order).await?);
    }
    let balancer = Balancer::start(stage, TOML, &replicas).await?;
    let scene = Scene { secret, store, database, replicas, balancer };

    stage.say("a token is opened without its key, and forged");
    anatomy::show(stage, &scene, &mut findings).await?;
    stage.say("checking a token is timed against asking the store");
    cost::weigh(stage, &scene, &mut findings).await?;
    stage.say("a token is stolen; the password changes; the thief goes on, in four schemes");
    stage.say("meanwhile, one gateway checks tokens for five services");
    let (thefts, pages) = tokio::try_join!(revocation::observe(&scene), gateway::observe(stage, &scene))?;
    revocation::report(&thefts, &mut findings);
    gateway::report(&pages, &mut findings);

    let Scene { store, database, replicas, balancer, .. } = scene;
    balancer.shutdown().await;
    drop((replicas, database));
    store.close().await?;
    Ok(findings)
}
