use super::*;

#[test]
fn calls_are_summed_by_thread() {
    let text = "# started\n\nworker-0-17;12;;a:malloc_1;100;100.00;;\nworker-0-17;3;;a:calloc_1;1;1;;\nrecord-18;4;;a:malloc_1;\n\
                main-1;<not counted>;;a:malloc_1;0\n";
    assert_eq!(parse(text), [("worker-0".to_owned(), 15), ("record".to_owned(), 4)].into());
}
