//! Limits of subscribing.

use ironpost::limits;

use crate::broker::{Broker, Start};
use crate::bytes::{self, Connect, Publish};
use crate::client::Client;
use crate::neighbours::Neighbours;

/// Subscribes to so many filters that begin like that; the reasons, without those that say success.
fn subscribe_many(client: &mut Client, begin: &str, count: usize) -> Vec<u8> {
    let filters: Vec<String> = (0..count).map(|number| format!("{begin}{number}")).collect();
    let mut reasons = Vec::new();
    for some in filters.chunks(256) {
        let some: Vec<(&str, u8)> = some.iter().map(|filter| (&**filter, 0)).collect();
        reasons.extend(client.subscribe_all(0, &some));
    }
    reasons.retain(|reason| *reason != 0);
    reasons
}

#[test]
fn a_session_with_1024_subscriptions_is_refused_another_with_0x97() {
    let broker = Broker::start();
    let mut neighbours = Neighbours::of(&broker);
    let mut client = Client::v5(&broker, "many");
    let most = limits::SUBSCRIPTIONS_PER_SESSION_MAX;
    assert_eq!(subscribe_many(&mut client, "own/", most), [0; 0]);
    assert_eq!(
        client.subscribe_all(0, &[("one/more", 1), ("own/1", 1)]),
        [0x97, 1],
        "a known one may change"
    );
    neighbours.go_on();
    assert_eq!(client.unsubscribe(&["own/2"]), [0]);
    assert_eq!(client.subscribe("one/more", 1), 1);
    client.publish(&Publish::new("one/more", "x"));
    client.expect("x");
}

#[test]
fn a_session_has_64_filters_that_every_shard_has_to_know_and_another_is_refused_with_0x97() {
    // One shard alone has nobody to tell, so it has no such filters.
    let broker = Broker::start_with(Start { shards: Some(2), ..Start::default() });
    let mut neighbours = Neighbours::of(&broker);
    let most = limits::BROAD_FILTERS_PER_SESSION_MAX;
    let mut client = Client::v5(&broker, "broad");
    assert_eq!(subscribe_many(&mut client, "+/", most + 2), [0x97; 2]);
    assert_eq!(client.subscribe("+/another", 0), 0x97, "in a packet of its own, too");
    assert_eq!(client.subscribe("literal/in/its/first/levels/#", 0), 0);
    assert_eq!(client.unsubscribe(&["+/0"]), [0]);
    assert_eq!(client.subscribe("+/another", 0), 0);
    assert_eq!(client.subscribe("+/1", 1), 1, "what it has, it may have again");
    neighbours.go_on();
}

#[test]
fn a_shard_with_4096_filters_that_every_shard_has_to_know_refuses_another_with_0x97() {
    let broker = Broker::start_with(Start { shards: Some(2), ..Start::default() });
    let mut neighbours = Neighbours::of(&broker);
    let full = limits::BROAD_FILTERS_PER_SHARD_MAX;
    let per_session = limits::BROAD_FILTERS_PER_SESSION_MAX;
    let mut clients = Vec::new();
    // Which shard a session lives in is not known, so the first refusal may come anywhere from here on.
    let refused = (0..2 * full / per_session + 1).find_map(|number| {
        let mut client = Client::v5(&broker, &format!("broad {number}"));
        let refused = subscribe_many(&mut client, &format!("+/{number}/"), per_session);
        clients.push(client);
        (!refused.is_empty()).then_some(refused)
    });
    let refused = refused.expect("more than both shards take");
    assert!(clients.len() * per_session > full);
    assert_eq!(refused, vec![0x97; per_session], "all of this session, as those of its shard came before");
    let mut last = clients.pop().expect("the one that was refused");
    assert_eq!(last.subscribe("literal/in/its/first/levels/#", 0), 0);
    neighbours.go_on();
    // With any other session of its shard gone there is room.
    drop(clients);
    let mut others = Client::v5(&broker, "broad 0");
    others.expect_nothing();
    let granted = (0..1_000).any(|_| last.subscribe("+/again", 0) == 0);
    assert!(granted);
}

#[test]
fn filters_beyond_1024_of_one_packet_are_refused_with_0x97() {
    let broker = Broker::start();
    let mut neighbours = Neighbours::of(&broker);
    let most = limits::FILTERS_PER_PACKET_MAX;
    for (connect, refused) in [(Connect::v3("v3"), 0x80), (Connect::v5("v5"), 0x97)] {
        let mut client = Client::connect(&broker, &connect);
        // One filter again and again is one subscription: it is the packet that is too long.
        let reasons = client.subscribe_all(0, &vec![("again", 1); most + 2]);
        assert_eq!(reasons, [vec![1; most], vec![refused; 2]].concat());
        client.publish(&Publish::new("again", "x"));
        client.expect("x");
    }
    neighbours.go_on();
}

#[test]
fn an_unsubscribe_with_more_than_1024_filters_ends_its_connection_with_0x97() {
    let broker = Broker::start();
    let mut neighbours = Neighbours::of(&broker);
    let most = limits::FILTERS_PER_PACKET_MAX;
    let mut others = Client::v5(&broker, "others");
    for connect in [Connect::v3("v3"), Connect::v5("v5")] {
        let level = connect.level;
        let mut client = Client::connect(&broker, &connect);
        assert_eq!(client.subscribe("kept", 1), 1);
        client.unsubscribe(&vec!["none"; most]);
        others.publish(&Publish::new("kept", "x"));
        client.expect("x");
        let id = client.id();
        client.send_regardless(&bytes::unsubscribe(level, id, &vec!["kept"; most + 1]));
        if level == 5 {
            client.expect_disconnect(0x97);
        } else {
            client.expect_close();
        }
    }
    neighbours.go_on();
}
