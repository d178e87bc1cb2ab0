// Opens a page in Chromium as a reader would, and fails if it complains, asks anybody for anything, or is cut off.
// Usage: node report.mjs CHROMIUM PAGE [FOLDER FOR SCREENSHOTS]
import { pathToFileURL } from 'node:url';
import path from 'node:path';
import { chromium } from 'playwright-core';

const [, , executablePath, file, screenshots] = process.argv;
const address = pathToFileURL(path.resolve(file)).href;
const faults = [];
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
for (const colorScheme of ['light', 'dark']) {
    for (const width of [1280, 390]) {
        const about = `${colorScheme}, ${width} pixels wide`;
        const context = await browser.newContext({ colorScheme, viewport: { width, height: 900 } });
        const page = await context.newPage();
        page.on('pageerror', error => faults.push(`${about}: ${error}`));
        page.on('console', message => {
            if (['error', 'warning'].includes(message.type())) faults.push(`${about}: console: ${message.text()}`);
        });
        page.on('request', request => {
            const url = request.url();
            if (url !== address && !url.startsWith('data:')) faults.push(`${about}: asks for ${url}`);
        });
        await page.goto(address);
        const seen = await page.evaluate(() => ({
            headings: document.querySelectorAll('h1, h2').length,
            tables: document.querySelectorAll('table').length,
            rows: document.querySelectorAll('table tr').length,
            pictures: [...document.querySelectorAll('svg')].filter(it => it.getBoundingClientRect().height > 40).length,
            scripts: document.querySelectorAll('script').length,
            overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
            text: getComputedStyle(document.body).color,
            ground: getComputedStyle(document.body).backgroundColor,
        }));
        if (seen.headings < 3 || seen.tables < 2 || seen.rows < 8 || seen.pictures < 2)
            faults.push(`${about}: parts are missing: ${JSON.stringify(seen)}`);
        if (seen.overflow > 0) faults.push(`${about}: ${seen.overflow} pixels are cut off at the right`);
        const light = colour => {
            const numbers = colour.match(/[\d.]+/g).map(Number);
            return numbers.length > 3 && numbers[3] === 0 ? null : (numbers[0] + numbers[1] + numbers[2]) / 3;
        };
        const [text, ground] = [light(seen.text), light(seen.ground)];
        if (ground === null || Math.abs(text - ground) < 120) faults.push(`${about}: text ${seen.text} on ${seen.ground}`);
        if ((ground < 128) !== (colorScheme === 'dark')) faults.push(`${about}: the ground is ${seen.ground}`);
        if (screenshots)
            await page.screenshot({ path: path.join(screenshots, `report-${colorScheme}-${width}.png`), fullPage: true });
        await context.close();
    }
}
await browser.close();
faults.forEach(fault => console.error(fault));
console.log(faults.length ? `${faults.length} faults` : `${path.basename(file)} opens in Chromium, light and dark, wide and narrow`);
process.exitCode = faults.length ? 1 : 0;
