//! Limits of connecting: the size of a CONNECT, the length of a client id, strangers, descriptors.

use std::time::Duration;

use ironpost::limits;

use crate::broker::{Broker, Start};
use crate::bytes::{Connect, user};
use crate::client::Client;
use crate::neighbours::Neighbours;

/// A CONNECT of that many bytes, most of them in user properties.
fn connect_of(bytes: usize) -> Connect {
    let filled = |value: usize| {
        let half = "x".repeat(value / 2);
        Connect::v5("long").with_user(&half).with_user(&"x".repeat(value - value / 2))
    };
    let overhead = filled(60_000).bytes().len() - 60_000;
    filled(bytes - overhead)
}

impl Connect {
    fn with_user(mut self, value: &str) -> Connect {
        self.properties.push(user("", value));
        self
    }
}

#[test]
fn a_connect_packet_over_64_kib_is_refused_with_0x95() {
    let broker = Broker::start();
    let mut neighbours = Neighbours::of(&broker);
    let largest = limits::CONNECT_BYTES_MAX as usize;
    assert_eq!(connect_of(largest).bytes().len(), largest);
    Client::connect(&broker, &connect_of(largest)).expect_nothing();
    let mut stranger = Client::open(&broker, 5);
    stranger.send_regardless(&connect_of(largest + 1).bytes());
    stranger.expect_refused(0x95);
    neighbours.go_on();
}

#[test]
fn a_client_id_over_256_bytes_is_refused_with_0x85() {
    let broker = Broker::start();
    let mut neighbours = Neighbours::of(&broker);
    let longest = "c".repeat(limits::CLIENT_ID_BYTES_MAX);
    Client::v5(&broker, &longest).expect_nothing();
    let mut client = Client::open(&broker, 5);
    client.send(&Connect::v5(&format!("{longest}c")).bytes());
    client.expect_refused(0x85);
    let mut client = Client::open(&broker, 4);
    client.send(&Connect::v3(&format!("{longest}c")).bytes());
    client.expect_refused(2);
    neighbours.go_on();
}

#[test]
fn without_descriptors_new_connections_wait_while_the_others_go_on() {
    // The reserve of the process counts too, so that far fewer than this are clients.
    let broker = Broker::start_with(Start { shell: "ulimit -n 64", ..Start::default() });
    let mut neighbours = Neighbours::of(&broker);
    let mut clients: Vec<Client> = (0..80)
        .map(|number| {
            let mut client = Client::open(&broker, 5);
            client.send(&Connect::v5(&format!("client {number}")).bytes());
            client
        })
        .collect();
    let within = Duration::from_millis(500);
    let waits = clients.iter_mut().position(|client| !client.hears_within(within));
    let accepted = waits.expect("80 connections need more than 64 descriptors");
    assert!((5..64).contains(&accepted), "{accepted} of 80 were accepted");
    neighbours.go_on();
    for client in &mut clients[..accepted] {
        client.expect_accepted();
        client.expect_nothing();
    }
    assert!(!clients[79].hears_within(within / 5), "it waits, and is not refused");
    drop(clients.drain(..accepted));
    // Each leaves before the next has to be there.
    for mut client in clients {
        client.expect_accepted();
    }
    neighbours.go_on();
}
