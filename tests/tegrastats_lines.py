"""What each line of tests/data/tegrastats_lines.txt says, field by field as it is printed."""

from __future__ import annotations

from edgekit.bench.tegrastats import Line, Load, Rail


def cores(*loads: str) -> tuple[Load, ...]:
    """`9@345` is 9 % at 345 MHz."""
    return tuple(Load(int(one.split("@")[0]), (int(one.split("@")[1]),)) for one in loads)


def rails(**milliwatts: tuple[int, ...]) -> dict[str, Rail]:
    return {name: Rail(*values) for name, values in milliwatts.items()}


def degrees(**celsius: float | None) -> dict[str, float | None]:
    return celsius


# The line, the whole module's milliwatts from the rail that is the whole, and the hottest sensor.
EXPECTED: list[tuple[Line, int | None, float]] = [
    (
        Line(
            (2020, 7852),
            cores("9@345", "21@345", "25@345", "3@345", "1@345", "1@345"),
            gpu=Load(0),
            memory=Load(0),
            temperature_c=degrees(
                pll=42.5, mcpu=42.5, pmic=100, tboard=40, gpu=41, bcpu=42.5, thermal=41.9, tdiode=41.25
            ),
            rails=rails(
                VDD_SYS_GPU=(153, 158),
                VDD_SYS_SOC=(536, 547),
                VDD_4V0_WIFI=(633, 527),
                VDD_IN=(3140, 3208),
                VDD_SYS_CPU=(536, 590),
                VDD_SYS_DDR=(557, 601),
            ),
        ),
        3140,
        42.5,
    ),
    (
        Line(
            (1685, 7854),
            cores("0@1303", "0@345", "0@345", "0@1419", "0@1420", "0@1421"),
            swap_mb=(278, 8192),
            gpu=Load(0, (140,)),
            memory=Load(0, (1866,)),
            temperature_c=degrees(bcpu=41, mcpu=41, gpu=39, pll=41, tboard=37, tdiode=37.25, pmic=100, thermal=39.9),
            rails=rails(
                VDD_IN=(1931, 1931),
                VDD_CPU=(231, 231),
                VDD_GPU=(154, 154),
                VDD_SOC=(385, 385),
                VDD_WIFI=(38, 38),
                VDD_DDR=(326, 326),
            ),
        ),
        1931,
        41,
    ),
    (
        Line(
            (1923, 3964),
            cores("5@1224", "4@1224", "3@1224", "6@1224"),
            swap_mb=(191, 1982),
            gpu=Load(0, (76,)),
            memory=Load(0, (1600,)),
            temperature_c=degrees(pll=37, cpu=40, pmic=50, gpu=40, ao=45, thermal=40),
            rails=rails(POM_5V_IN=(1750, 1628), POM_5V_GPU=(0, 0), POM_5V_CPU=(366, 406)),
        ),
        1750,
        45,
    ),
    (
        Line(
            (14700, 15692),
            cores(*["0@1190"] * 8),
            swap_mb=(898, 8192),
            gpu=Load(0),
            memory=Load(0),
            temperature_c=degrees(ao=30, gpu=30.5, tboard=31, tdiode=32, aux=30.5, cpu=31.5, thermal=30.8, pmic=100),
            rails=rails(
                GPU=(463, 463), CPU=(618, 618), SOC=(2936, 2936), CV=(0, 0), VDDRQ=(309, 309), SYS5V=(3306, 3306)
            ),
        ),
        463 + 618 + 2936 + 0 + 309 + 3306,
        32,
    ),
    (
        Line(
            (5246, 7771),
            cores("47@1420", "23@1420", "32@1420", "22@1420", "31@1420", "96@1420"),
            swap_mb=(983, 20269),
            gpu=Load(0, (1109,)),
            memory=Load(2, (1600,)),
            temperature_c=degrees(ao=29, gpu=31.5, pmic=100, aux=30, cpu=33.5, thermal=31.35),
            rails=rails(VDD_IN=(6140, 5510), VDD_CPU_GPU_CV=(2706, 2119), VDD_SOC=(1074, 1051)),
        ),
        6140,
        33.5,
    ),
    (
        Line(
            (3168, 6851),
            cores("23@1397", "17@1192", "16@1190", "13@1190", "23@1190", "10@1190"),
            date="07-09-2024 13:31:31",
            swap_mb=(161, 3426),
            gpu=Load(0, (114,)),
            memory=Load(2, (204,)),
            temperature_c=degrees(aux=45, cpu=46.5, thermal=45.6, ao=45, gpu=45.5, pmic=50),
            rails=rails(VDD_IN=(2763, 2846), VDD_CPU_GPU_CV=(650, 670), VDD_SOC=(650, 711)),
        ),
        2763,
        46.5,
    ),
    (
        Line(
            (6185, 7620),
            cores("15@729", "11@729", "14@729", "13@729", "11@729", "8@729"),
            date="11-15-2024 08:38:09",
            swap_mb=(851, 3810),
            gpu=Load(63, (621,)),
            memory=Load(43, (2133,)),
            temperature_c=degrees(cpu=53.968, soc2=52.437, soc0=50.75, gpu=53.343, tj=53.968, soc1=51.656),
            rails=rails(VDD_IN=(12479, 12479), VDD_CPU_GPU_CV=(4667, 4667), VDD_SOC=(2817, 2817)),
        ),
        12479,
        53.968,
    ),
    (
        Line(
            (6982, 7620),
            cores("97@1984", "95@1984", "95@1984", "91@1984", "88@1984", "93@247"),
            date="05-15-2025 18:30:28",
            swap_mb=(2640, 16384),
            gpu=Load(84, (713,)),
            memory=Load(18, (3199,)),
            temperature_c=degrees(
                cv0=63.031,
                cpu=65.562,
                soc2=64.156,
                soc0=63.031,
                cv1=62.937,
                gpu=63.5,
                tj=65.562,
                soc1=64.718,
                cv2=60.875,
            ),
            rails=rails(VDD_IN=(17946, 15710), VDD_CPU_GPU_CV=(8896, 7585), VDD_SOC=(3923, 3515)),
        ),
        17946,
        65.562,
    ),
    (
        Line(
            (4321, 62801),
            cores(*["0@729"] * 12),
            date="04-11-2025 10:36:27",
            swap_mb=(19, 31400),
            gpu=Load(0, (0, 0)),
            memory=Load(0, (2133,)),
            temperature_c=degrees(
                cv0=None,
                cpu=44.562,
                tboard=32,
                soc2=40.093,
                tdiode=33,
                soc0=41.093,
                cv1=None,
                gpu=None,
                tj=44.343,
                soc1=41.25,
                cv2=None,
            ),
            rails=rails(
                VDD_GPU_SOC=(2340, 2340),
                VDD_CPU_CV=(390, 390),
                VIN_SYS_5V0=(4025, 4025),
                VDDQ_VDD2_1V8AO=(301, 301),
            ),
        ),
        2340 + 390 + 4025,
        44.562,
    ),
    (
        Line(
            (18207, 62841),
            cores(
                *["14@2188", "5@2112", "8@2035", "14@2201", "46@1267", "47@1267"],
                *["2@1267", "10@1267", "4@1036", "5@1036", "6@1036", "10@1036"],
            ),
            date="05-09-2026 18:42:06",
            swap_mb=(86, 31420),
            gpu=Load(0, (0, 0)),
            memory=Load(3, (2133,)),
            temperature_c=degrees(cpu=52.562, soc2=48.437, soc0=49.093, tj=52.562, soc1=49.656),
            rails=rails(VDD_GPU_SOC=(2412, 2412), VDD_CPU_CV=(1607, 1607), VIN_SYS_5V0=(4707, 4707)),
        ),
        2412 + 1607 + 4707,
        52.562,
    ),
    (
        Line(
            (20642, 62817),
            cores(
                *["23@2201", "10@2201", "4@2201", "14@2201", "30@2201", "18@2201"],
                *["10@2201", "10@2201", "33@2201", "7@2201", "5@2201", "27@2201"],
            ),
            date="07-25-2026 09:08:28",
            gpu=Load(12, (1300, 1300)),
            memory=Load(3, (3199,)),
            temperature_c=degrees(cpu=52.968, soc2=48.406, soc0=49.531, gpu=47.625),
            rails=rails(VDD_GPU_SOC=(5139, 5139, 5139), VDD_CPU_CV=(3268, 3268, 3268), VIN_SYS_5V0=(5500, 5500, 5500)),
        ),
        5139 + 3268 + 5500,
        52.968,
    ),
    (
        Line(
            (4280, 125773),
            cores(
                *["0@972", "0@972", "0@972", "0@972", "1@972", "0@972", "1@972"],
                *["0@972", "0@2601", "17@2601", "1@972", "9@972", "0@972", "1@972"],
            ),
            date="05-17-2026 10:00:33",
            swap_mb=(0, 2048),
            gpu=Load(None, (0, 0, 0)),  # clocks without a load: the load is unknown, not 0
            memory=Load(0, (665,)),
            temperature_c=degrees(cpu=35.25, tj=36.031, soc012=36.062, soc345=34.5),
            rails=rails(VDD_GPU=(0, 0), VDD_CPU_SOC_MSS=(4923, 4544), VIN_SYS_5V0=(4327, 4227)),
        ),
        None,  # a Thor without VIN: the parts it prints are not the whole
        36.062,
    ),
    (
        Line(
            (36529, 125749),
            cores("2@972", "1@972", *["0@972"] * 11, "2@972"),
            date="07-02-2026 13:45:44",
            swap_mb=(11, 4096),
            temperature_c=degrees(cpu=60.406, tj=63.281, soc012=58.468, gpu=62.906, soc345=63.281),
            rails=rails(
                VDD_GPU=(37528, 37528, 37528),
                VDD_CPU_SOC_MSS=(18961, 18961, 18961),
                VIN_SYS_5V0=(18331, 18331, 18331),
                VIN=(87426, 43713, 87426),
            ),
        ),
        87426,
        63.281,
    ),
    (
        Line(
            (17842, 125772),
            cores("0@972", "0@972", "0@1566", "0@1566", *["0@972"] * 6, "1@972", *["0@972"] * 3),
            date="01-20-2026 22:46:22",
            temperature_c=degrees(cpu=30.468, tj=31.218, soc012=30.218, soc345=31.218),
            rails=rails(VDD_GPU=(0, 0), VDD_CPU_SOC_MSS=(5535, 5535), VIN_SYS_5V0=(5040, 5040), VIN=(16802, 16802)),
        ),
        16802,
        31.218,
    ),
]
