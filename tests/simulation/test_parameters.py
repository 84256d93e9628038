import pytest
from pydantic import ValidationError

from ssl_lens.errors import InputError
from ssl_lens.simulation.parameters import Parameters, parse_parameters


def test_ranges_values_words_and_colours():
    given = parse_parameters(
        ["shear=0,0.1", "lens_redshift=0.4", "noise=deeplense", "source_colour_mag=0,0.5,1", "lens_colour_mag=0,1,2"]
    )
    assert given.shear == (0, 0.1)
    assert given.lens_redshift == (0.4, 0.4)
    assert given.noise == "deeplense"
    assert given.orientation == "physical"
    assert given.source_colour_mag == (0, 0.5, 1)
    assert given.halo_mass_msun == Parameters().halo_mass_msun


def test_all_of_deeplenses_choices_or_all_but_one():
    words = {name: "deeplense" for name in ("noise", "orientation", "subhalo_scatter", "distances")}
    given = parse_parameters(["noise=physical"], as_deeplense=True)
    assert given == Parameters(**words | {"noise": "physical", "subhalo_slope": (-0.9, -0.9)})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("shear", "'shear' is not key=value; write for example shear=0,0.1"),
        ("sheer=0.1", "unknown key sheer=0.1; the nearest are shear"),
        ("shear=a", "shear=a is not a number or low,high; write for example shear=0.1,0.2"),
        ("shear=", "shear= is not a number or low,high"),
        ("shear=0,0.1,0.2", "shear=0,0.1,0.2 has 3 numbers; give one, or low,high"),
        ("shear=0.2,0.1", "shear=0.2,0.1 is not a range; write its low end first"),
        ("shear=-0.1", r"shear=-0.1 should be greater than or equal to 0"),
        ("shear=nan", r"shear=nan should be a finite number"),
        ("lens_ellipticity=0.9", "lens_ellipticity=0.9 should be less than 0.8"),
        ("subhalo_slope=0.5", "subhalo_slope=0.5 should be less than 0"),
        ("subhalo_slope=-inf", "subhalo_slope=-inf should be a finite number"),
        ("einstein_radius_arcsec=0,1", "einstein_radius_arcsec=0.0 should be greater than 0"),
        ("noise=loud", "noise=loud should be 'physical' or 'deeplense'"),
        ("lens_redshift=0.2,1.5", "source_redshift=1 is not behind lens_redshift=1.5; raise source_redshift"),
        ("source_colour_mag=0,1", "source_colour_mag has 2 bands, lens_colour_mag 1"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(override, message):
    with pytest.raises(InputError, match=message) as error:
        parse_parameters([override])
    assert "\n" not in str(error.value)


def test_unknown_names_are_refused_from_python_too():
    with pytest.raises(ValidationError, match="sheer"):
        Parameters(sheer=(0, 0.1))


def test_wide_ranges_where_no_override_says_otherwise():
    wide = parse_parameters(["shear=0.01"], randomised=True)
    assert (wide.shear, wide.einstein_radius_arcsec, wide.subhalo_slope) == ((0.01, 0.01), (0.7, 1.6), (-0.9, -0.9))
    assert wide.noise == "physical"
    both = parse_parameters(as_deeplense=True, randomised=True)
    assert (both.noise, both.lens_light) == ("deeplense", (0.0, 0.5))
    assert parse_parameters().lens_light == (0.0, 0.0)
