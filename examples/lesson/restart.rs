//! Step 4 of the lesson's conversion: log in through server 1, restart server 1, send the next
//! request to server 2. Does it work? Once for each way to keep a session.
//!
//! Start at [`verify`]. On its way it fills in the audit sheet of step 1, in [`audit`], and tries
//! what somebody else might try, in [`safety`].

mod audit;
mod safety;
mod verdict;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use self::safety::Safety;
use crate::harness::{Chapter, Findings, Outcome, Replica, Spoil, Stage};
use crate::shop::shopper::Shopper;
use crate::shop::{Capacity, Order, Stand, Strategy, wait_for_peers};

pub const CHAPTER: Chapter = Chapter {
    name: "restart",
    title: "Can you restart any server? (step 4)",
    about: "Users log in through replica 1 and fill a cart, replica 1 is killed and started again, and \
            their next request goes to replica 2. Then all three replicas are restarted at once.",
    guess: "Of memory, replicated memory, a store, a JWT and the client: which pass the lesson's test, \
            and which of them still pass when all replicas are restarted at once?",
    roles: &[],
    run: |stage| Box::pin(run(stage)),
};

const TOML: &str = r#"
[pool.app]
policy = "POLICY"
backends = BACKENDS
[pool.app.health]
path = "/healthz"
interval = "100ms"
rise = 1
"#;

/// How many things everybody puts into the cart.
const THINGS: usize = 3;

/// A way to keep a session, and who gets a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    strategy: Strategy,
    policy: &'static str,
}

const fn by_round_robin(strategy: Strategy) -> Case {
    Case { strategy, policy: "round_robin" }
}

const CASES: [Case; 6] = [
    by_round_robin(Strategy::Memory),
    Case { strategy: Strategy::Memory, policy: "sticky_cookie" },
    by_round_robin(Strategy::Replicated),
    by_round_robin(Strategy::Central),
    by_round_robin(Strategy::Token),
    by_round_robin(Strategy::Client),
];

/// What came of a case.
#[derive(Clone, Debug)]
struct Told {
    case: Case,
    users: usize,
    /// How many users each replica has in its memory.
    in_memory: Vec<u64>,
    /// How many have a session in the store.
    in_store: usize,
    /// What a client holds, with its size.
    with_client: Vec<String>,
    /// How many replicas knew everybody who came straight to them.
    known_by: usize,
    /// For how many all was well with three replicas and before any restart.
    works_before: usize,
    /// Who answered the first request after the restart, and for how many all was as before.
    answered_by: String,
    works: usize,
    /// For how many all was as before when all three replicas were restarted at once.
    works_after_all: usize,
    /// How many have their dark mode and filters in the end.
    preferences: usize,
    safety: Safety,
}

impl Told {
    fn passes(&self) -> bool {
        self.works == self.users
    }

    fn name(&self) -> String {
        match self.case.policy {
            "sticky_cookie" => format!("{} × sticky_cookie", self.case.strategy.name()),
            _ => self.case.strategy.name().into(),
        }
    }
}

async fn run(stage: &Stage) -> Outcome<Findings> {
    let users = stage.pick(12, 20, 60);
    let [memory, sticky, replicated, central, token, client] = CASES;
    let (one, two, three) = tokio::try_join!(
        lane(stage, users, [memory, central]),
        lane(stage, users, [sticky, token]),
        lane(stage, users, [replicated, client]),
    )?;
    let mut told = [one, two, three].concat();
    told.sort_by_key(|told| CASES.iter().position(|case| *case == told.case));
    let told = told.try_into().map_err(|_| "a case is missing")?;
    Ok(verdict::findings(&told))
}

/// One case after the other.
async fn lane(stage: &Stage, users: usize, cases: [Case; 2]) -> Outcome<Vec<Told>> {
    let mut told = Vec::new();
    for case in cases {
        told.push(verify(stage, case, users).await?);
    }
    Ok(told)
}

/// The lesson's test, for so many users.
async fn verify(stage: &Stage, case: Case, users: usize) -> Outcome<Told> {
    let store = if case.strategy == Strategy::Central { Some(stage.store().await?) } else { None };
    let mut order = Order::new(case.strategy);
    order.capacity = Capacity::UNLIMITED;
    order.store = store.as_ref().map(|store| store.url().to_owned());
    order.local_copies = stage.spoil == Some(Spoil::Cache);
    let mut stand = Stand::open(stage, order, 3, &TOML.replace("POLICY", case.policy)).await?;

    // 1. User logs in through Server 1.
    only(&stand, "r1").await?;
    let at = stand.balancer.address;
    let mut shoppers: Vec<_> = (0..users).map(|user| Shopper::new(at, case.strategy, user)).collect();
    let mut began = 0;
    for shopper in &mut shoppers {
        began += usize::from(shopper.log_in().await.replica == "r1" && shopper.logged_in);
        for _ in 0..THINGS {
            shopper.add().await;
        }
    }
    if began != users {
        return Err(format!("only {began} of {users} logged in through replica 1").into());
    }
    let in_memory = audit::in_memory(&stand).await?;
    let in_store = audit::in_store(store.as_ref(), &shoppers).await?;
    let with_client = audit::with_client(case.strategy, &shoppers);
    let known_by = audit::known_by(&stand, &mut shoppers).await;
    let safety = safety::attempt(at, case.strategy, users).await;

    // 2. Restart Server 1.
    everybody(&stand).await?;
    let (works_before, _) = everybody_looks(&mut shoppers).await;
    stand.replicas[0].restart().await?;
    wait_for_peers(case.strategy, &stand.replicas).await?;
    // 3. User's next request goes to Server 2; but a cookie leads back to Server 1.
    match case.policy {
        "sticky_cookie" => stand.balancer.wait_for("r1", "up").await?,
        _ => only(&stand, "r2").await?,
    }
    // 4. Does it work?
    let (works, answered_by) = everybody_looks(&mut shoppers).await;

    everybody(&stand).await?;
    stand.replicas.iter_mut().for_each(Replica::kill);
    for replica in &mut stand.replicas {
        replica.restart().await?;
    }
    wait_for_peers(case.strategy, &stand.replicas).await?;
    for replica in &stand.replicas {
        stand.balancer.wait_for(&replica.name, "up").await?;
    }
    let (works_after_all, _) = everybody_looks(&mut shoppers).await;
    let preferences = preferences_kept(case.strategy, &shoppers);

    drop(shoppers);
    stand.close().await;
    if let Some(store) = store {
        store.close().await?;
    }
    let told = Told {
        case,
        users,
        in_memory,
        in_store,
        with_client,
        known_by,
        works_before,
        answered_by,
        works,
        works_after_all,
        preferences,
        safety,
    };
    let name = told.name();
    stage.say(format!(
        "{name}: {works} of {users} still logged in after one restart, {works_after_all} after three"
    ));
    Ok(told)
}

/// Sends every request to one replica: the others are stopped in Pintle, and run on.
async fn only(stand: &Stand, name: &str) -> Outcome<()> {
    let pintle = &stand.balancer.pintle;
    pintle.ready(&format!("app/{name}")).await.map_err(|fault| fault.detail)?;
    stand.balancer.wait_for(name, "up").await?;
    for other in stand.replicas.iter().filter(|replica| replica.name != name) {
        pintle.stop(&format!("app/{}", other.name)).await.map_err(|fault| fault.detail)?;
    }
    Ok(())
}

/// Every replica gets requests.
async fn everybody(stand: &Stand) -> Outcome<()> {
    for replica in &stand.replicas {
        let ready = stand.balancer.pintle.ready(&format!("app/{}", replica.name)).await;
        ready.map_err(|fault| fault.detail)?;
        stand.balancer.wait_for(&replica.name, "up").await?;
    }
    Ok(())
}

/// For how many all is as before, and who says so.
async fn everybody_looks(shoppers: &mut [Shopper]) -> (usize, String) {
    let (mut works, mut by) = (0, BTreeSet::new());
    for shopper in shoppers {
        let visit = shopper.look().await;
        works += usize::from(visit.notice.is_none() && shopper.cart.len() == THINGS);
        by.insert(visit.replica);
    }
    (works, by.into_iter().collect::<Vec<_>>().join(", "))
}

/// Dark mode and filters are as they were chosen: they never left the client.
fn preferences_kept(strategy: Strategy, shoppers: &[Shopper]) -> usize {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let chosen = |user| Shopper::new(nowhere, strategy, user).preferences;
    shoppers.iter().enumerate().filter(|(user, shopper)| shopper.preferences == chosen(*user)).count()
}
