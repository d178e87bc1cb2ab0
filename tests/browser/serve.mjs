// Uses the page of `ounce serve` in Chromium as a person would, by keyboard: sends, stops, asks again, looks at the dashboard.
// Fails if the page complains, asks anybody but its server for anything, or is cut off.
// Usage: node serve.mjs CHROMIUM ADDRESS [FOLDER FOR SCREENSHOTS]
import path from 'node:path';
import { chromium } from 'playwright-core';

const [, , executablePath, address, screenshots] = process.argv;
const faults = [];
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
for (const colorScheme of ['light', 'dark']) {
    for (const width of [1280, 390]) {
        const about = `${colorScheme}, ${width} pixels wide`;
        const fault = what => faults.push(`${about}: ${what}`);
        const context = await browser.newContext({ colorScheme, viewport: { width, height: 900 } });
        const page = await context.newPage();
        page.on('pageerror', error => fault(error));
        page.on('console', message => {
            if (['error', 'warning'].includes(message.type())) fault(`console: ${message.text()}`);
        });
        page.on('request', request => {
            const url = request.url();
            if (!url.startsWith(address) && !url.startsWith('data:')) fault(`asks for ${url}`);
        });
        const shot = async name => {
            if (screenshots) await page.screenshot({ path: path.join(screenshots, `serve-${name}-${colorScheme}-${width}.png`) });
            const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
            if (overflow > 0) fault(`${name}: ${overflow} pixels are cut off at the right`);
        };
        await page.goto(address + '/');
        await page.waitForFunction(() => document.querySelector('#model').options.length > 0);
        await page.fill('#max_tokens', '60');
        await page.focus('#input');
        await page.keyboard.type('Once upon a time');
        await page.keyboard.press('Enter');
        await page.waitForSelector('.assistant .facts', { timeout: 60000 });
        const first = await page.textContent('.assistant');
        if (first.length < 40) fault(`the answer is ${JSON.stringify(first)}`);
        await shot('chat');
        // A long answer is stopped, and what came of it stays.
        await page.fill('#max_tokens', '400');
        await page.focus('#input');
        await page.keyboard.press('Alt+KeyR');
        await page.waitForFunction(() => document.querySelectorAll('.assistant').length === 1 && document.querySelector('.assistant').textContent.length > 5);
        await page.keyboard.press('Escape');
        await page.waitForFunction(() => document.querySelector('#stop').disabled);
        if (!['stopped', ''].includes(await page.textContent('#status'))) fault('the answer was not stopped');
        await page.keyboard.press('Alt+KeyN');
        if (await page.locator('.message').count() !== 0) fault('a new conversation is not empty');
        await page.focus('#tab-chat');
        await page.keyboard.press('ArrowRight');
        await page.waitForFunction(() => document.querySelectorAll('.tile').length > 8);
        await page.waitForTimeout(2500);
        if (await page.locator('#load path').count() < 2) fault('the dashboard draws nothing');
        await shot('dashboard');
        await page.goto(address + '/docs');
        if (await page.locator('h3').count() < 20) fault('the interface is not described');
        await shot('docs');
        await context.close();
    }
}
await browser.close();
faults.forEach(it => console.error(it));
console.log(faults.length ? `${faults.length} faults` : 'the page of ounce serve works in Chromium, light and dark, wide and narrow');
process.exitCode = faults.length ? 1 : 0;
