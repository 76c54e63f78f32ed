use rialto_protocol::{EnergySource, NodeKey, Price, Region, SigningKey, offer::Offer};

use super::*;
use crate::{data_dir::DataDir, settings::File};

fn benchmark() -> Benchmark {
    let model = Found::read(Path::new(MANIFEST)).unwrap();
    Benchmark {
        model: model.manifest.listing(),
        manifest: model.manifest.hash(),
        engine: "llama.cpp fast".into(),
        processor: "one".into(),
        version: "1".into(),
        unit: "token".into(),
        input_per_second: 1_000.0,
        output_per_second: Some(10.0),
        input_microjoules: 120_000,
        output_microjoules: Some(12_000_000),
        energy_source: EnergySource::Estimated,
    }
}

const MANIFEST: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../models/shakespeare/manifest-q8_0.toml"
);

fn settings(folder: &tempfile::TempDir, file: &str) -> Settings {
    Settings {
        file: toml::from_str::<File>(file).unwrap(),
        config: None,
        dir: DataDir::open(folder.path().join("market")).unwrap(),
        json: false,
    }
}

fn offer(input: u64, output: u64) -> Announcement {
    let key = SigningKey::from_bytes(&[7; 32]).unwrap();
    let manifest = Found::read(Path::new(MANIFEST)).unwrap().manifest;
    let publisher = Address([9; 20]);
    let offer = Offer {
        provider: key.address(),
        node: NodeKey([1; 32]),
        addresses: Vec::new(),
        relay: None,
        model: manifest.model_id(publisher),
        publisher,
        price: Price {
            input,
            output,
            request: 0,
        },
        chunk: 64,
        capacity: 1,
        load: 0,
        speed: 0,
        region: Region::default(),
        energy_millijoules: 0,
        energy_source: EnergySource::Unknown,
        engine: "simulated".into(),
        retains_data: false,
        sequence: 1,
        expires_at: 100,
    };
    offer.announce(&key, manifest)
}

#[test]
fn a_seller_that_is_alone_asks_what_its_electricity_costs_and_its_margin() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder, "");
    let suggested = Terms::new(&settings, None, None).unwrap().suggest(&benchmark(), &[]);
    // 0.12 J and 12 J at 0.30 dollars a kilowatt-hour, and a fifth.
    assert_eq!((suggested.input.cost, suggested.input.price), (10, 12));
    let output = suggested.output.unwrap();
    assert_eq!((output.cost, output.price), (1_000, 1_200));
    let cheap = Terms::new(&settings, Some(&"0.03".to_owned()), Some(0)).unwrap();
    assert_eq!(cheap.suggest(&benchmark(), &[]).output.unwrap().price, 100);
    let said = suggested.explained("token").join("\n");
    assert!(
        said.contains("output 1200 nano-dollars a token") && said.contains("estimated"),
        "{said}"
    );
}

#[test]
fn a_machine_that_has_to_be_earned_back_makes_slow_units_dear() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder, "[provider]\nhardware = \"1500\"\nhardware_years = 4");
    let suggested = Terms::new(&settings, None, None).unwrap().suggest(&benchmark(), &[]);
    // 1500 dollars over two years of work are 23.8 micro-dollars a second: a tenth of one for each token.
    assert_eq!(suggested.output.unwrap().cost, 1_000 + 2_377);
    let wrong = toml::from_str::<File>("[provider]\nhardware = \"much\"").unwrap();
    let settings = Settings {
        file: wrong,
        ..settings
    };
    assert!(
        Terms::new(&settings, None, None)
            .unwrap_err()
            .to_string()
            .contains("provider.hardware")
    );
}

#[test]
fn live_offers_of_the_same_model_decide_above_cost() {
    let folder = tempfile::tempdir().unwrap();
    let terms = Terms::new(&settings(&folder, ""), None, None).unwrap();
    let model = Found::read(Path::new(MANIFEST)).unwrap();
    let mut other = offer(1, 1);
    std::sync::Arc::make_mut(&mut other.manifest).tag = "other".into();
    let book = [offer(900, 4_000), offer(1_000, 5_000), other];
    let offers = of_model(&book, &model);
    assert_eq!(offers.len(), 2);
    let suggested = terms.suggest(&benchmark(), &offers);
    assert_eq!((suggested.input.price, suggested.output.unwrap().price), (900, 4_000));
}

#[test]
fn a_model_is_named_by_its_path_or_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder, &format!("[provider]\nmodels = [\"{MANIFEST}\"]"));
    let by_path = named(&settings, &[MANIFEST.to_owned()]).unwrap();
    let by_name = named(&settings, &["rialto/shakespeare:q8_0".to_owned()]).unwrap();
    assert_eq!(by_path[0].manifest, by_name[0].manifest);
    let none = named(&settings, &["rialto/nobody:v1".to_owned()]).unwrap_err();
    assert!(none.to_string().contains("rialto model list"), "{none}");
}
