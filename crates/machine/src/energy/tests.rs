use super::*;
use crate::fixture::Machine;

const SECOND: Duration = Duration::from_secs(1);

fn meter(machine: &Machine) -> Meter {
    let root = machine.root();
    let hardware = Hardware::detect_in(&root);
    Meter::in_root(root, &hardware)
}

fn cpu(time: Duration) -> Used {
    Used {
        cpu: time,
        ..Used::default()
    }
}

#[test]
fn a_laptop_is_estimated_until_it_has_worked_and_then_measured() {
    let machine = Machine::laptop();
    let meter = meter(&machine);
    assert_eq!(
        *meter.cpu_readout(),
        CpuReadout::Rapl(vec!["package-0".into(), "dram".into()])
    );
    machine.counters(1_000_000, 500_000, 1_000);
    meter.sample_at(SECOND);
    assert_eq!(meter.cpu_rate().source, EnergySource::Estimated);

    // Ten seconds of two busy cores at 15 W and 1 W of memory.
    machine.counters(151_000_000, 10_500_000, 3_000);
    meter.sample_at(SECOND * 11);
    let rate = meter.cpu_rate();
    assert_eq!(rate.source, EnergySource::Measured);
    assert_eq!(rate.milliwatts, 8_000);
    let energy = meter.energy(cpu(Duration::from_millis(250)));
    assert_eq!((energy.millijoules(), energy.source), (2_000, EnergySource::Measured));
}

#[test]
fn a_counter_that_goes_round_is_followed() {
    let machine = Machine::laptop();
    let meter = meter(&machine);
    machine.counters(Machine::RANGE - 10_000_000, 0, 0);
    meter.sample_at(SECOND);
    machine.counters(20_000_000, 0, 1_000);
    meter.sample_at(SECOND * 11);
    assert_eq!(meter.cpu_rate().milliwatts, 3_000);
}

#[test]
fn looks_that_are_too_close_or_too_far_apart_teach_nothing() {
    let machine = Machine::laptop();
    let meter = meter(&machine);
    machine.counters(0, 0, 0);
    meter.sample_at(SECOND);
    machine.counters(90_000_000, 0, 1_000);
    meter.sample_at(SECOND + SHORTEST / 2);
    assert_eq!(meter.cpu_rate().source, EnergySource::Estimated);
    meter.sample_at(SECOND * 120);
    assert_eq!(meter.cpu_rate().source, EnergySource::Estimated);
    // From the look that was too late it goes on.
    machine.counters(95_000_000, 0, 1_100);
    meter.sample_at(SECOND * 121);
    assert_eq!(meter.cpu_rate().milliwatts, 5_000);
}

#[test]
fn a_virtual_machine_is_estimated_and_says_why() {
    let machine = Machine::virtual_machine();
    let meter = meter(&machine);
    assert_eq!(*meter.cpu_readout(), CpuReadout::Estimated(Obstacle::Virtual));
    let energy = meter.energy(cpu(SECOND * 2));
    assert_eq!((energy.millijoules(), energy.source), (7_000, EnergySource::Estimated));
    assert!(Obstacle::Virtual.to_string().contains("sell from the host"));
    // Little is not nothing, and nothing is not known.
    let little = meter.energy(cpu(Duration::from_nanos(1)));
    assert_eq!((little.microjoules, little.millijoules()), (1, 1));
    assert_eq!(meter.energy(Used::default()), Energy::UNKNOWN);
}

#[test]
fn counters_that_only_root_may_read_are_named_with_the_command_that_opens_them() {
    use std::os::unix::fs::PermissionsExt;

    let machine = Machine::laptop();
    let file = machine.root().path("sys/class/powercap/intel-rapl:0/energy_uj");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&file).is_ok() {
        // Root reads everything; then there is nothing to mend.
        assert!(matches!(meter(&machine).cpu_readout(), CpuReadout::Rapl(_)));
    } else {
        let CpuReadout::Estimated(obstacle) = meter(&machine).cpu_readout().clone() else {
            panic!("it was read")
        };
        assert_eq!(obstacle, Obstacle::Unreadable(file.clone()));
    }
    let said = Obstacle::Unreadable(file.clone()).to_string();
    assert!(said.contains(&format!("sudo chmod a+r {}", file.display())), "{said}");
}

#[test]
fn amd_draws_by_its_power_and_its_busy_time() {
    let machine = Machine::workstation();
    let meter = meter(&machine);
    assert_eq!(meter.gpu_rate().unwrap().source, EnergySource::Estimated);
    machine.gpu(300_000_000, 50);
    meter.sample_at(SECOND);
    meter.sample_at(SECOND * 5);
    let rate = meter.gpu_rate().unwrap();
    // 300 W for four seconds, of which it was busy for two.
    assert_eq!((rate.milliwatts, rate.source), (600_000, EnergySource::Measured));

    // The processor of this machine tells nothing: what used both is an estimate as a whole.
    let both = meter.energy(Used {
        cpu: SECOND,
        gpu: SECOND,
    });
    assert_eq!((both.millijoules(), both.source), (607_000, EnergySource::Estimated));
    let gpu = meter.energy(Used {
        gpu: SECOND,
        ..Used::default()
    });
    assert_eq!(gpu.source, EnergySource::Measured);
}

#[test]
fn this_machine_tells_what_a_second_of_work_draws() {
    let meter = Meter::new(&Hardware::detect());
    meter.sample();
    let energy = meter.energy(cpu(SECOND));
    assert!((500..200_000).contains(&energy.millijoules()), "{energy:?}");
    assert_ne!(energy.source, EnergySource::Unknown);
}
