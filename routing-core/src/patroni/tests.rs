use super::*;

fn patroni() -> Patroni {
    let url = "postgres://app:hunter2@template/shop?sslmode=disable".parse().unwrap();
    let mut options = PatroniOptions::new(["http://10.0.0.1:8008"], url);
    options.probe_url = Some("postgres://monitor@template/shop".parse().unwrap());
    Patroni::new(options).unwrap()
}

fn take(patroni: &Patroni, answer: &str) -> Discovered {
    patroni.take(&serde_json::from_str(answer).unwrap(), &"http://10.0.0.1:8008".parse().unwrap())
}

#[test]
fn both_shapes_of_an_answer_name_the_members_and_the_leader() {
    let newer = r#"{"members":[
        {"name":"n1","role":"leader","state":"running","api_url":"http://10.0.0.1:8008/patroni","host":"10.0.0.1","port":5432,"timeline":12},
        {"name":"n2","role":"replica","state":"streaming","api_url":"http://10.0.0.2:8008/patroni","host":"10.0.0.2","port":5433,
         "timeline":12,"receive_lag":0,"receive_lsn":"0/5E1D898","replay_lag":0,"replay_lsn":"0/5E1D898","lag":0,"lsn":"0/5E1D898",
         "tags":{"noloadbalance":true,"nofailover":true,"zone":"north"}}],"scope":"lab"}"#;
    let older = r#"{"members":[
        {"name":"n1","role":"leader","state":"running","api_url":"http://10.0.0.1:8008/patroni","host":"10.0.0.1","port":5432,"timeline":12},
        {"name":"n2","role":"replica","state":"stopped","api_url":"http://10.0.0.2:8008/patroni","host":"10.0.0.2","port":5433,
         "lag":"unknown","tags":{"noloadbalance":"true","zone":"north"}}]}"#;
    let patroni = patroni();
    for answer in [newer, older] {
        let found = take(&patroni, answer);
        let shown: Vec<_> =
            found.nodes.iter().map(|node| (node.name.as_str(), node.url.to_string(), node.reads)).collect();
        assert_eq!(
            shown,
            [("n1", "10.0.0.1:5432/shop".to_owned(), true), ("n2", "10.0.0.2:5433/shop".to_owned(), false)]
        );
        let zones: Vec<_> = found.nodes.iter().map(|node| node.zone.as_deref()).collect();
        assert_eq!(zones, [None, Some("north")]);
        assert!(found.nodes[0].url.expose().contains("app:hunter2@10.0.0.1:5432/shop?sslmode=disable"));
        assert_eq!(found.nodes[1].probe_url().expose(), "postgres://monitor@10.0.0.2:5433/shop");
        let leader = Leader { node: "n1".into(), timeline: Some(Timeline(12)), running: true };
        assert_eq!(found.leader, Some(leader));
    }
    let learned: Vec<_> = patroni.known().iter().map(place).collect();
    assert_eq!(learned, ["10.0.0.1:8008", "10.0.0.2:8008"], "each once, whoever answered first");
}

#[test]
fn a_zone_may_be_a_word_or_a_number_and_nothing_else() {
    for (tag, zone) in [
        (r#""north""#, Some("north")),
        (r#"" north ""#, Some("north")),
        ("1", Some("1")),
        (r#""1""#, Some("1")),
        (r#"" ""#, None),
        ("null", None),
        ("true", None),
        (r#"["north"]"#, None),
    ] {
        let answer =
            format!(r#"{{"members":[{{"name":"n1","host":"h","port":1,"tags":{{"zone":{tag}}}}}]}}"#);
        assert_eq!(take(&patroni(), &answer).nodes[0].zone.as_deref(), zone, "{tag}");
    }
}

#[test]
fn a_leader_that_does_not_run_or_is_none_is_told() {
    let of = |role: &str, state: &str| {
        format!(
            r#"{{"members":[{{"name":"n1","role":"{role}","state":"{state}","host":"h","port":1,"timeline":null}}]}}"#
        )
    };
    let patroni = patroni();
    for state in ["stopping", "crashed", "starting", "stopped", "unknown", ""] {
        let leader = take(&patroni, &of("leader", state)).leader.unwrap();
        assert_eq!((leader.running, leader.timeline), (false, None), "{state}");
    }
    for role in ["replica", "sync_standby", "quorum_standby", "standby_leader", ""] {
        assert_eq!(take(&patroni, &of(role, "running")).leader, None, "{role}");
    }
    // A member whose address is not known yet is none to connect to.
    let half = take(&patroni, r#"{"members":[{"name":"n1","role":"leader","state":"starting"}]}"#);
    assert_eq!(half.nodes, []);
    assert!(half.leader.is_some());
}

#[test]
fn wrong_addresses_are_refused_at_the_start() {
    let url: DatabaseUrl = "postgres://app@template/shop".parse().unwrap();
    let refused =
        |members: &[&str]| Patroni::new(PatroniOptions::new(members.to_vec(), url.clone())).unwrap_err();
    assert_eq!(refused(&[]), InvalidPatroni::NoMember);
    for member in ["10.0.0.1:8008", "ftp://h", "http://", "postgres://h/d"] {
        assert_eq!(refused(&["http://h", member]), InvalidPatroni::Member(member.to_owned()));
    }
}
