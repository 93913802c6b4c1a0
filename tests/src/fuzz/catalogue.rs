//! The pages of the catalogue of series, with good checksums and changed content.

use std::hint::black_box;
use std::sync::OnceLock;

use tidelog_record::{Series, SiteName};
use tidelog_store::catalogue::Catalogue;
use tidelog_store::{MatchOp, Matcher};

const MEMORY_BYTES: usize = 1 << 16;
/// An input's steps: what to do, the page, the place in it, the byte.
const STEP_BYTES: usize = 4;
const SERIES: u32 = 300;

fn site() -> SiteName {
    "plant".parse().expect("a name")
}

fn series(number: u32) -> Series {
    let labels = [("device", format!("d{number}")), ("floor", format!("{}", number % 7))];
    Series::new("temperature", labels).expect("a series")
}

/// The pages of a catalogue of two runs.
fn pages() -> &'static [(Vec<u8>, Vec<u8>)] {
    static PAGES: OnceLock<Vec<(Vec<u8>, Vec<u8>)>> = OnceLock::new();
    PAGES.get_or_init(|| {
        let catalogue = Catalogue::in_memory(MEMORY_BYTES);
        for number in 0..SERIES {
            catalogue.ensure(&site(), &series(number).canonical()).expect("memory takes it");
            if number == SERIES / 2 {
                catalogue.flush().expect("memory takes it");
            }
        }
        catalogue.flush().expect("memory takes it");
        catalogue.pages().expect("whole pages")
    })
}

pub(super) fn catalogue_seeds() -> Vec<Vec<u8>> {
    let every_page: Vec<u8> = (0..=u8::try_from(pages().len()).unwrap_or(u8::MAX))
        .flat_map(|page| [0, page, page.wrapping_mul(7), 0x81])
        .collect();
    vec![vec![], every_page, vec![1, 3, 9, 0, 2, 5, 1, 7], vec![3, 4, 0, 0], vec![0, 2, 1, 200]]
}

/// Whatever its pages say, a catalogue is refused or answers, and takes a series or says why not.
pub(super) fn catalogue(input: &[u8]) {
    let mut pages = pages().to_vec();
    for step in input.chunks_exact(STEP_BYTES) {
        let &[deed, page, at, byte] = step else { continue };
        let page = usize::from(page) % pages.len().max(1);
        let Some((key, value)) = pages.get_mut(page) else { return };
        // The last places can be met from behind, and keys are changed too.
        let bytes = if deed & 8 == 0 { value } else { key };
        let at =
            if deed & 16 == 0 { usize::from(at) } else { bytes.len().saturating_sub(1 + usize::from(at)) };
        match deed & 3 {
            0 => {
                if let Some(changed) = bytes.get_mut(at) {
                    *changed = byte;
                }
            }
            1 => bytes.truncate(at),
            2 => bytes.insert(at.min(bytes.len()), byte),
            _ => drop(pages.remove(page)),
        }
    }
    let Ok(catalogue) = Catalogue::forged(pages, MEMORY_BYTES) else { return };
    let matcher = |label: &str, op, value: &str| Matcher::new(label, op, value).expect("a matcher");
    let matchers = [
        vec![],
        vec![matcher("device", MatchOp::Equal, "d7")],
        vec![matcher("floor", MatchOp::NotEqual, "3")],
        vec![matcher("device", MatchOp::Regex, "d1.*")],
        vec![matcher("room", MatchOp::NotRegex, "x|")],
    ];
    let new = Series::new("humidity", [("device", "new")]).expect("a series");
    for name in catalogue.sites() {
        for matchers in &matchers {
            black_box(catalogue.select(&name, matchers).is_ok());
        }
        black_box(catalogue.label_names(&name, &[]).is_ok());
        black_box(catalogue.label_values(&name, "device", &[]).is_ok());
    }
    black_box(catalogue.ensure(&site(), &new.canonical()).is_ok());
    black_box(catalogue.flush().is_ok());
    black_box(catalogue.tend().is_ok());
    black_box(catalogue.select(&site(), &[matcher("device", MatchOp::Equal, "new")]).is_ok());
}
