//! The catalogue against a set of names, through reopening, damage and merges.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const MEMORY_BYTES: usize = 64 * 1024;

fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

fn series(metric: &str, labels: &[(&str, &str)]) -> Series {
    Series::new(metric, labels.iter().copied()).unwrap()
}

/// Small worlds, so that names meet.
fn any_series() -> impl Strategy<Value = Series> {
    let value = prop_oneof![4 => "[a-c]{1,2}", 1 => "[\u{0}\u{1}a]{1,2}"];
    let labels = prop::collection::btree_map(prop::sample::select(vec!["x", "xy", "y"]), value, 0..3);
    (prop::sample::select(vec!["t", "h", "th"]), labels)
        .prop_map(|(m, labels)| Series::new(m, labels).unwrap())
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    use MatchOp::*;
    let name = prop::sample::select(vec!["__name__", "x", "xy", "y", "absent"]);
    let op = prop::sample::select(vec![Equal, NotEqual, Regex, NotRegex]);
    let value = prop_oneof![
        "[a-cth]{0,2}",
        prop::sample::select(vec![
            "a|b|t", "a.*", ".+", ".*", "|a", "[ab]c?", "a|ab.*|t", "b?", "\u{1}.*", "(?i)A"
        ])
        .prop_map(str::to_owned),
    ];
    (name, op, value).prop_map(|(name, op, value)| Matcher::new(name, op, value).unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    Ensure(bool, Series),
    Settle,
    Tend,
    ForgetCaches,
    Reopen,
    Select(bool, Vec<Matcher>),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (any::<bool>(), any_series()).prop_map(|(first, series)| Step::Ensure(first, series)),
        3 => Just(Step::Settle),
        2 => Just(Step::Tend),
        1 => Just(Step::ForgetCaches),
        1 => Just(Step::Reopen),
        6 => (any::<bool>(), prop::collection::vec(any_matcher(), 0..4)).prop_map(|(s, m)| Step::Select(s, m)),
    ]
}

/// What a list of all series answers.
#[derive(Default)]
struct Model(BTreeMap<SiteName, BTreeSet<Series>>);

impl Model {
    fn select(&self, site: &SiteName, matchers: &[Matcher]) -> Vec<Series> {
        let all = self.0.get(site).into_iter().flatten();
        all.filter(|series| matchers.iter().all(|m| m.holds(series))).cloned().collect()
    }

    fn judge(&self, catalogue: &Catalogue, site: &SiteName, matchers: &[Matcher]) {
        let expected = self.select(site, matchers);
        let found = catalogue.select(site, matchers).unwrap();
        assert!(found.iter().map(AsRef::as_ref).eq(&expected), "{matchers:?}: {found:?} is not {expected:?}");
        let mut names: BTreeSet<String> =
            expected.iter().flat_map(|s| s.labels()).map(|(name, _)| name.to_owned()).collect();
        if !expected.is_empty() {
            names.insert("__name__".to_owned());
        }
        assert!(catalogue.label_names(site, matchers).unwrap().iter().eq(&names));
        for name in ["__name__", "x", "xy", "absent"] {
            let values: BTreeSet<String> =
                expected.iter().filter_map(|s| s.label(name)).map(str::to_owned).collect();
            assert!(catalogue.label_values(site, name, matchers).unwrap().iter().eq(&values), "{name}");
        }
    }

    fn judge_whole(&self, catalogue: &Catalogue) {
        assert!(catalogue.sites().iter().eq(self.0.keys()));
        for (site, series) in &self.0 {
            assert_eq!(catalogue.series_count(site), series.len() as u64);
            self.judge(catalogue, site, &[]);
        }
    }
}

fn run(steps: Vec<Step>, memory_bytes: usize, folder: Option<PathBuf>) {
    let open = || match &folder {
        Some(folder) => {
            let (catalogue, _) = Catalogue::open(folder, memory_bytes).unwrap();
            catalogue
        }
        None => Catalogue::in_memory(memory_bytes),
    };
    let (mut catalogue, mut model) = (open(), Model::default());
    let name = |first: bool| if first { site("a") } else { site("b") };
    for step in steps {
        match step {
            Step::Ensure(first, series) => {
                let new = model.0.entry(name(first)).or_default().insert(series.clone());
                assert_eq!(catalogue.ensure(&name(first), &series.canonical()), Ok(new));
            }
            Step::Settle => catalogue.flush().unwrap(),
            Step::Tend => while catalogue.tend().unwrap() {},
            Step::ForgetCaches => catalogue.forget_caches(),
            Step::Reopen if folder.is_some() => {
                catalogue.flush().unwrap();
                drop(catalogue);
                catalogue = open();
            }
            Step::Reopen => {}
            Step::Select(first, matchers) => model.judge(&catalogue, &name(first), &matchers),
        }
    }
    model.judge_whole(&catalogue);
}

proptest! {
    #[test]
    fn it_answers_as_a_list_of_all_series_does(
        steps in prop::collection::vec(any_step(), 1..120), memory in prop::sample::select(vec![0usize, 4096, 1 << 20]),
    ) {
        run(steps, memory, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn in_a_folder_too(steps in prop::collection::vec(any_step(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        run(steps, MEMORY_BYTES, Some(dir.path().join("series")));
    }

    #[test]
    fn a_folder_that_rotted_is_begun_anew_or_answers_as_before_and_takes_all_series_again(
        file in any::<Index>(), offset in any::<Index>(), bit in 0u8..8, cut in prop::option::of(any::<Index>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("series");
        let mut model = Model::default();
        let fill = |catalogue: &Catalogue, model: &mut Model| {
            for number in 0..600 {
                let series = series("t", &[("device", &format!("d{number}")), ("room", &format!("r{}", number % 7))]);
                catalogue.ensure(&site("a"), &series.canonical()).unwrap();
                model.0.entry(site("a")).or_default().insert(series);
                if number % 50 == 49 {
                    catalogue.flush().unwrap();
                }
            }
        };
        let (catalogue, begun) = Catalogue::open(&folder, MEMORY_BYTES).unwrap();
        prop_assert!(begun.is_some());
        fill(&catalogue, &mut model);
        while catalogue.tend().unwrap() {}
        catalogue.flush().unwrap();
        drop(catalogue);
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).filter(|f| f.is_file()).collect();
        files.sort();
        let file = &files[file.index(files.len())];
        let mut bytes = fs::read(file).unwrap();
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        if !bytes.is_empty() {
            let at = offset.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        fs::write(file, bytes).unwrap();
        let (catalogue, begun) = Catalogue::open(&folder, MEMORY_BYTES).unwrap();
        if begun.is_none() {
            model.judge_whole(&catalogue);
        }
        fill(&catalogue, &mut model);
        model.judge_whole(&catalogue);
    }
}

#[test]
fn a_folder_that_was_deleted_or_emptied_is_begun_anew_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("series");
    let one = series("t", &[]).canonical();
    let (catalogue, begun) = Catalogue::open(&folder, MEMORY_BYTES).unwrap();
    assert_eq!(begun.as_deref(), Some("the folder was not there"));
    assert_eq!(catalogue.ensure(&site("a"), &one), Ok(true));
    catalogue.flush().unwrap();
    drop(catalogue);
    let (catalogue, begun) = Catalogue::open(&folder, MEMORY_BYTES).unwrap();
    assert_eq!((begun, catalogue.ensure(&site("a"), &one)), (None, Ok(false)));
    drop(catalogue);
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    let (catalogue, begun) = Catalogue::open(&folder, MEMORY_BYTES).unwrap();
    assert!(begun.is_some_and(|reason| reason.contains("are gone; moved to")));
    assert_eq!(catalogue.ensure(&site("a"), &one), Ok(true));
    drop(catalogue);
    fs::write(folder.join("conf"), [b'!'; 64]).unwrap();
    let (catalogue, begun) = Catalogue::open(&folder, MEMORY_BYTES).unwrap();
    assert!(
        begun.as_ref().is_some_and(|reason| reason.contains("moved to")),
        "it says where the old one is: {begun:?}"
    );
    assert_eq!(catalogue.ensure(&site("a"), &one), Ok(true));
}

#[test]
fn a_folder_whose_openings_all_ended_the_process_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, note) = (dir.path().join("series"), dir.path().join("series.opening"));
    let one = series("t", &[]).canonical();
    let enter = || {
        let (catalogue, begun) = Catalogue::open(&folder, MEMORY_BYTES).unwrap();
        let is_new = catalogue.ensure(&site("a"), &one).unwrap();
        catalogue.flush().unwrap();
        assert!(!note.exists(), "what came to an end is not counted");
        (begun, is_new)
    };
    enter();
    // As a process leaves it that ends while it opens the folder, once and again.
    for unended in 1..=2 {
        fs::write(&note, vec![b'.'; unended]).unwrap();
        assert_eq!(enter(), (None, false), "{unended} may be power cuts");
    }
    fs::write(&note, [b'.'; 3]).unwrap();
    let (begun, is_new) = enter();
    assert!(begun.is_some_and(|reason| reason.contains("came to an end; moved to")));
    assert!(is_new);
    assert_eq!(enter(), (None, false));
}

#[test]
fn each_opening_that_comes_to_no_end_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("series");
    let hopeless = || {
        let opening = opening::Opening::begin(&folder);
        opening.is_hopeless()
    };
    assert_eq!([(); 5].map(|()| hopeless()), [false, false, false, true, true]);
    opening::Opening::begin(&folder).end();
    assert!(!hopeless());
}

#[test]
fn what_is_no_series_is_refused_and_enters_nothing() {
    let catalogue = Catalogue::in_memory(MEMORY_BYTES);
    assert!(matches!(catalogue.ensure(&site("a"), b"\x01-\x00"), Err(CatalogueError::Series(_))));
    assert_eq!((catalogue.series_count_all(), catalogue.sites()), (0, vec![]));
    assert_eq!(catalogue.select(&site("nowhere"), &[]), Ok(vec![]));
}

#[test]
fn questions_are_answered_while_runs_are_made_and_merged() {
    let catalogue = Catalogue::in_memory(MEMORY_BYTES);
    let one = |number: u32| series("t", &[("n", &number.to_string())]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..4000 {
                catalogue.ensure(&site("a"), &one(number).canonical()).unwrap();
                if number % 20 == 0 {
                    catalogue.flush().unwrap();
                }
            }
        });
        scope.spawn(|| {
            while catalogue.series_count_all() < 4000 {
                catalogue.tend().unwrap();
            }
        });
        let mut before = 0;
        while before < 4000 {
            let found = catalogue.select(&site("a"), &[Matcher::metric("t")]).unwrap();
            assert!(found.is_sorted() && found.len() >= before, "{} after {before}", found.len());
            before = found.len();
        }
    });
}

#[test]
fn a_folder_that_went_back_in_time_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, older) = (dir.path().join("series"), dir.path().join("older"));
    let enter = |metric: &str| {
        let (catalogue, begun) = Catalogue::open(&folder, MEMORY_BYTES).unwrap();
        catalogue.ensure(&site("a"), &series(metric, &[]).canonical()).unwrap();
        catalogue.flush().unwrap();
        begun
    };
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        for file in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    enter("first");
    copy(&folder, &older);
    assert_eq!(enter("second"), None);
    fs::remove_dir_all(&folder).unwrap();
    copy(&older, &folder);
    assert!(enter("third").is_some_and(|reason| reason.contains("that were durable are gone")));
    assert_eq!(enter("third"), None);
}
