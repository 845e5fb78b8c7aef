use std::fs;

use tempfile::TempDir;

use super::Marks;
use crate::adopt::{Engines, Tree};
use crate::ids::WorkloadName;

/// A folder that holds cgroups, as far as freezing them goes, and the folders of workloads.
struct Scene {
    room: TempDir,
    marks: Marks,
}

impl Scene {
    fn new() -> Self {
        let room = tempfile::tempdir().unwrap();
        let marks = Self::marks(&room);
        for path in ["/a", "/b"] {
            fs::create_dir_all(room.path().join(format!("cgroup2{path}"))).unwrap();
        }
        let scene = Self { room, marks };
        ["/a", "/b"].iter().for_each(|path| scene.set(path, "0"));
        scene
    }

    /// As a daemon has them that has just started.
    fn marks(room: &TempDir) -> Marks {
        let room = room.path();
        Marks::new(Tree::new(room.join("cgroup2"), Engines::new(room.into(), room.into())), room.join("adopted"))
    }

    fn set(&self, path: &str, state: &str) {
        fs::write(self.room.path().join(format!("cgroup2{path}/cgroup.freeze")), state).unwrap();
    }

    fn is_still(&self, path: &str) -> bool {
        fs::read_to_string(self.room.path().join(format!("cgroup2{path}/cgroup.freeze"))).unwrap().trim() == "1"
    }

    fn freeze(&self, name: &str, paths: &[&str]) {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        self.marks.freeze(&workload(name), &paths);
    }

    fn thaw(&self, name: &str) {
        self.marks.thaw(&workload(name), Vec::new);
    }

    fn mark(&self, name: &str) -> std::path::PathBuf {
        self.room.path().join(format!("adopted/{name}/frozen"))
    }
}

fn workload(name: &str) -> WorkloadName {
    name.parse().unwrap()
}

#[test]
fn what_stands_still_for_two_goes_on_when_neither_needs_it() {
    let scene = Scene::new();
    scene.freeze("crm", &["/a"]);
    scene.freeze("mail", &["/a"]);
    scene.thaw("crm");
    assert!(scene.is_still("/a"), "the other one needs it still");
    scene.thaw("mail");
    assert!(!scene.is_still("/a"));
    assert!(!scene.mark("crm").exists() && !scene.mark("mail").exists());

    // Nor does what is given up.
    scene.freeze("crm", &["/a", "/b"]);
    scene.freeze("mail", &["/a"]);
    scene.marks.give_up(&workload("crm"), |_| true);
    assert!(scene.is_still("/a") && !scene.is_still("/b"));
    scene.thaw("mail");
    assert!(!scene.is_still("/a"));
}

#[test]
fn what_somebody_else_froze_stays_as_it_is() {
    let scene = Scene::new();
    scene.set("/a", "1");
    scene.freeze("crm", &["/a"]);
    scene.thaw("crm");
    assert!(scene.is_still("/a"));
    assert!(!scene.mark("crm").exists());
}

#[test]
fn a_cgroup_of_that_name_that_is_made_again_stands_still_as_well() {
    let scene = Scene::new();
    scene.freeze("crm", &["/a"]);
    scene.set("/a", "0");
    scene.freeze("crm", &["/a"]);
    assert!(scene.is_still("/a"));
}

#[test]
fn a_mark_is_written_when_there_is_something_new_only() {
    let scene = Scene::new();
    scene.freeze("crm", &["/a"]);
    let noted = fs::read_to_string(scene.mark("crm")).unwrap() + "\nnot by us";
    fs::write(scene.mark("crm"), &noted).unwrap();
    scene.freeze("crm", &["/a"]);
    assert_eq!(fs::read_to_string(scene.mark("crm")).unwrap(), noted);
    scene.freeze("crm", &["/a", "/b"]);
    assert_eq!(fs::read_to_string(scene.mark("crm")).unwrap(), "frozen by Interceptor:\n/a\n/b");
}

#[test]
fn a_mark_that_cant_be_written_says_what_it_said_and_the_rest_is_remembered() {
    let scene = Scene::new();
    scene.freeze("crm", &["/a"]);
    let noted = fs::read_to_string(scene.mark("crm")).unwrap();
    // As where there is no room on the disk.
    let draft = scene.mark("crm").with_extension("draft");
    fs::create_dir(&draft).unwrap();
    scene.freeze("crm", &["/a", "/b"]);
    assert!(scene.is_still("/b"));
    assert_eq!(fs::read_to_string(scene.mark("crm")).unwrap(), noted);
    // It is noted down as soon as that can be.
    fs::remove_dir(&draft).unwrap();
    scene.freeze("crm", &["/a", "/b"]);
    let later = Scene::marks(&scene.room);
    later.thaw(&workload("crm"), Vec::new);
    assert!(!scene.is_still("/a") && !scene.is_still("/b"));
}

#[test]
fn what_cant_be_noted_down_at_all_goes_on_as_well() {
    let scene = Scene::new();
    // There is something else where the workloads' folders should be.
    fs::write(scene.room.path().join("adopted"), "").unwrap();
    for path in ["/a", "/b"] {
        scene.freeze("crm", &[path]);
        assert!(scene.is_still(path) && scene.marks.has(&workload("crm")));
        assert!(scene.marks.names().contains(&workload("crm")));
        if path == "/a" {
            scene.thaw("crm");
        } else {
            scene.marks.give_up(&workload("crm"), |_| true);
        }
        assert!(!scene.is_still(path) && !scene.marks.has(&workload("crm")), "{path}");
    }
}

#[test]
fn a_mark_that_names_nothing_isnt_lost() {
    let scene = Scene::new();
    for path in ["/a", "/b"] {
        scene.set(path, "1");
    }
    fs::create_dir_all(scene.mark("crm").parent().unwrap()).unwrap();
    fs::write(scene.mark("crm"), "").unwrap();
    scene.marks.give_up(&workload("crm"), |_| true);
    assert!(scene.mark("crm").exists() && scene.is_still("/a"), "what it stands for isn't known");
    // Its workload is adopted again, which has both.
    scene.freeze("crm", &["/a"]);
    scene.marks.thaw(&workload("crm"), || unreachable!("it names them by now"));
    assert!(!scene.is_still("/a") && scene.is_still("/b"));
    fs::create_dir_all(scene.mark("crm").parent().unwrap()).unwrap();
    fs::write(scene.mark("crm"), "").unwrap();
    scene.marks.thaw(&workload("crm"), || vec!["/b".into()]);
    assert!(!scene.is_still("/b") && !scene.mark("crm").exists());
}

#[test]
fn what_another_workload_has_by_now_is_given_up_alone() {
    let scene = Scene::new();
    scene.freeze("crm", &["/a", "/b"]);
    scene.marks.give_up(&workload("crm"), |_| false);
    assert!(scene.is_still("/a") && scene.is_still("/b"));
    scene.marks.give_up(&workload("crm"), |path| path == "/a");
    assert!(!scene.is_still("/a") && scene.is_still("/b"));
    assert_eq!(fs::read_to_string(scene.mark("crm")).unwrap(), "frozen by Interceptor:\n/b");
}

#[test]
fn of_what_is_let_go_of_the_mark_stays() {
    let scene = Scene::new();
    scene.freeze("crm", &["/a"]);
    fs::write(scene.mark("crm").with_file_name("id"), "x").unwrap();
    fs::create_dir(scene.mark("crm").with_file_name("names")).unwrap();
    scene.marks.clear(&workload("crm"));
    let left: Vec<_> = fs::read_dir(scene.room.path().join("adopted/crm")).unwrap().flatten().collect();
    assert!(scene.is_still("/a") && left.len() == 1 && left[0].file_name() == "frozen", "{left:?}");
    scene.thaw("crm");
    assert!(!scene.is_still("/a") && !scene.room.path().join("adopted/crm").exists());
}
