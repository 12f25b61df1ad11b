"""The page in a real browser: it sorts, filters, lays runs over each other, and asks for nothing."""

import csv
import json
import shutil
import time

import pytest
import small_competition as small

from foldblend.commands import report
from foldblend.settings.paths import Paths

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs a browser: apt-get install chromium chromium-driver"
)
HOSTILE = "=1+1 </script><script>document.title = 1</script><img src=x onerror=document.title=2> <b>bold</b>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a competition with a hostile text, three runs and test rows."""
    root = tmp_path_factory.mktemp("browser")
    shutil.copytree(small.__file__.replace("tests/commands/small_competition.py", "configs"), root / "configs")
    paths = Paths(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLDBLEND_ROOT", str(root))
        hidden = small.write_competition(paths)
        train = paths.data("small") / "train.csv"
        train.write_text(train.read_text().replace("r36,text 36,", f'r36,"{HOSTILE}",'))
        small.write_runs(paths, hidden, (0.5, 1.5, 2.0))
        report.main(["--competition", "small"])
    return paths.submissions("small") / "report.html"


@pytest.fixture(scope="module")
def browser(page):
    """Chromium with the page open."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(page.parent)})
    driver.get(page.as_uri())
    yield driver
    driver.quit()


def cells(browser, table, column):
    rows = browser.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr")
    return [row.find_elements(By.TAG_NAME, "td")[column].text for row in rows if row.is_displayed()]


def test_a_table_sorts_by_numbers_and_names(browser):
    heads = browser.find_elements(By.CSS_SELECTOR, "#runs th")
    heads[1].click()
    scores = [float(cell) for cell in cells(browser, "runs", 1)]
    assert scores == sorted(scores, reverse=True) and len(scores) == 4
    heads[1].click()
    assert [float(cell) for cell in cells(browser, "runs", 1)] == scores[::-1]
    heads[0].click()
    assert cells(browser, "runs", 0) == ["blend", "run0", "run1", "run2"]


def test_rows_are_filtered_by_label_kind_and_words(browser):
    figure = browser.find_element(By.ID, "worst")
    everything = len(figure.find_elements(By.TAG_NAME, "article"))
    label, kind = (Select(figure.find_element(By.NAME, name)) for name in ("label", "kind"))
    label.select_by_visible_text("anger")
    kind.select_by_visible_text("missed")
    found = figure.find_elements(By.TAG_NAME, "article")
    assert 0 < len(found) <= everything and all("missed: anger" in row.text for row in found)
    label.select_by_index(0)
    kind.select_by_index(0)
    figure.find_element(By.NAME, "text").send_keys("onerror")
    found = figure.find_elements(By.TAG_NAME, "article")
    assert len(found) == 1 and HOSTILE in found[0].text


def test_a_fitted_line_is_no_row_of_points(browser):
    """Of a chart of points, a series without names."""
    named = {"name": "submissions", "x": [1, 2], "y": [1, 3], "names": ["a", "b"]}
    line = {"name": "line", "x": [1, 2], "y": [1, 2]}
    chart = {"kind": "points", "title": "t", "x": "x", "y": "y", "series": [named, line]}
    found = browser.execute_script(
        "const s = plot(arguments[0]); return [s.querySelectorAll('circle').length, s.querySelectorAll('path').length]",
        chart,
    )
    assert found == [2, 1]


def test_two_runs_are_laid_over_each_other(browser):
    figure = browser.find_element(By.ID, "curves")
    Select(figure.find_element(By.NAME, "run")).select_by_visible_text("run1")
    Select(figure.find_element(By.NAME, "laid over it")).select_by_visible_text("run2")
    legends = [each.text for each in figure.find_elements(By.CLASS_NAME, "legend")]
    assert len(legends) == 3 and all("run1" in text and "run2" in text for text in legends)
    lines = figure.find_elements(By.CSS_SELECTOR, "svg path[fill=none]")
    assert len(lines) == 6 and all("NaN" not in line.get_attribute("d") for line in lines)
    Select(figure.find_element(By.NAME, "laid over it")).select_by_index(0)
    assert len(figure.find_elements(By.CSS_SELECTOR, "svg path[fill=none]")) == 3


def test_numbers_are_saved_and_formulas_are_not_run(browser, page):
    figure = browser.find_element(By.ID, "worst")
    browser.execute_script("arguments[0].scrollIntoView()", figure)
    browser.execute_script("arguments[0].click()", figure.find_element(By.CLASS_NAME, "save"))
    saved = page.parent / "worst.csv"
    for _ in range(100):
        if saved.exists():
            break
        time.sleep(0.1)
    with saved.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert f"'{HOSTILE}" in texts


def test_the_page_is_no_wider_than_a_phone(browser):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_is_asked_for_and_nothing_fails(browser):
    """The last one, so that it sees what the others did."""
    assert browser.title == "small: report"
    assert not browser.find_elements(By.CSS_SELECTOR, "main img, main b")
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert asked and all(url.startswith(("file:", "data:", "blob:")) for url in asked)
