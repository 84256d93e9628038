import pytest
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Cosmo.lens_cosmo import LensCosmo

from ssl_lens.simulation.cosmology import einstein_arcsec2_per_msun, einstein_radius_arcsec


@pytest.mark.parametrize(("lens_redshift", "source_redshift"), [(0.5, 1.0), (0.2, 0.7), (0.8, 3.0)])
def test_against_the_critical_density_of_lenstronomy(lens_redshift, source_redshift):
    area = einstein_arcsec2_per_msun(lens_redshift, source_redshift)
    cosmology = LensCosmo(lens_redshift, source_redshift, cosmo=FlatLambdaCDM(H0=70, Om0=0.3))
    mass = cosmology.mass_in_theta_E(einstein_radius_arcsec(1e12, area))
    assert mass == pytest.approx(1e12, rel=1e-3)  # its constants are older


def test_the_ring_of_deeplense_as_it_should_be_and_as_it_computes_it():
    area = einstein_arcsec2_per_msun(0.5, 1.0)
    assert einstein_radius_arcsec(1e12, area) == pytest.approx(1.66452, rel=1e-5)
    assert einstein_radius_arcsec(1e8, area) == pytest.approx(0.0166452, rel=1e-5)
    theirs = einstein_arcsec2_per_msun(0.5, 1.0, as_deeplense=True)
    assert einstein_radius_arcsec(1e12, theirs) == pytest.approx(1.28, abs=0.005)
