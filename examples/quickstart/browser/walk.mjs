// SPDX-License-Identifier: Apache-2.0

// Looks at pages of reports as readers do, for TestPage: from the file, by keyboard, on
// a phone's width, in the dark, and in print. It prints one JSON object: what it has
// found, with the problems of each page.
//
//   node walk.mjs BROWSER FOLDER PAGE...
//
// Screenshots go into FOLDER.

import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, join } from 'node:path'
import { pathToFileURL } from 'node:url'

import puppeteer from 'puppeteer-core'

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const [executablePath, folder, ...pages] = process.argv.slice(2)
const figure1 = ['a', 'b', 'c', 'd', '1', '2', '3', '4', '5']

const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] })
try {
  const results = {}
  for (const [i, page] of pages.entries()) results[basename(page)] = await look(page, i === 0)
  console.log(JSON.stringify(results))
} finally {
  await browser.close()
}

// look returns what is wrong with a page, and how much of it was looked at.
async function look (file, isFirst) {
  const problems = []
  const found = { problems, steps: 0, walked: 0, screenshots: 0, rules: 0, requests: 0 }
  const name = basename(file, '.html')
  // The first page in all ways, and others in the narrowest.
  const ways = [[360, 'dark']]
  if (isFirst) ways.push([1280, 'light'], [360, 'light'], [1280, 'dark'])
  for (const [width, scheme] of ways) {
    const at = `${width} ${scheme}`
    const page = await open(file, width, scheme, (problem) => problems.push(`${at}: ${problem}`), found)
    await noScroll(page, at, problems)
    // Of a long page the beginning is enough.
    await page.screenshot({ path: join(folder, `${name}-${width}-${scheme}.png`), fullPage: isFirst })
    found.screenshots++
    if (!(scheme === 'light' && width === 360) && !(scheme === 'dark' && width === 1280)) await walk(page, at, problems, found)
    await page.$$eval('button.all', (buttons) => buttons.forEach((button) => button.click()))
    await noScroll(page, `${at}, all steps`, problems)
    if ((await page.$$('.act')).length === 1) { // of many, one is like the other
      await contrast(page, `${at}, all steps`, problems, found)
    }
    await page.close()
  }
  await print(file, name, isFirst, problems, found)
  return found
}

async function open (file, width, scheme, problem, found) {
  const page = await browser.newPage()
  page.on('console', (message) => problem(`console: ${message.text()}`))
  page.on('pageerror', (error) => problem(`error: ${error.message}`))
  page.on('dialog', async (dialog) => { problem(`dialog: ${dialog.message()}`); await dialog.dismiss() })
  page.on('request', (request) => {
    if (request.url() !== pathToFileURL(file).href) problem(`it loads ${request.url()}`)
    found.requests++
  })
  await page.setViewport({ width, height: width < 600 ? 740 : 900 })
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }])
  await page.goto(pathToFileURL(file).href)
  return page
}

async function noScroll (page, at, problems) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
  if (over > 0) problems.push(`${at}: it scrolls sideways, by ${over} pixels`)
}

// contrast asks axe for all of its rules, and looks by itself at the text of the SVG, of
// which axe says nothing.
async function contrast (page, at, problems, found) {
  // As a test does and a page cannot: its policy allows no script but its own.
  const session = await page.createCDPSession()
  const { frameTree } = await session.send('Page.getFrameTree')
  const { executionContextId } = await session.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id })
  await session.send('Runtime.evaluate', { expression: axe, contextId: executionContextId })
  const { result, exceptionDetails } = await session.send('Runtime.evaluate', {
    expression: '(async () => { const r = await axe.run(document); return JSON.stringify({ rules: r.passes.length, violations: r.violations.map((v) => v.id + ": " + v.nodes.slice(0, 3).map((n) => n.target + " " + (n.any[0]?.message ?? "")).join("; ")) }) })()',
    contextId: executionContextId, awaitPromise: true, returnByValue: true
  })
  if (exceptionDetails) throw new Error(`axe: ${exceptionDetails.text} ${exceptionDetails.exception?.description}`)
  const axed = JSON.parse(result.value)
  found.rules = Math.max(found.rules, axed.rules)
  for (const violation of axed.violations) problems.push(`${at}: ${violation}`)
  await session.detach()

  const weak = await page.evaluate(() => {
    const channels = (color) => color.match(/[\d.]+/g).slice(0, 3).map(Number)
    const light = (color) => {
      const [r, g, b] = channels(color).map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
      return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const between = (x, y) => (Math.max(light(x), light(y)) + 0.05) / (Math.min(light(x), light(y)) + 0.05)
    const page = getComputedStyle(document.body).backgroundColor
    const found = []
    for (const text of document.querySelectorAll('svg.figure text')) {
      const own = getComputedStyle(text).fill
      const badge = text.classList.contains('letter') && getComputedStyle(text.parentNode.querySelector('.badge')).fill
      const grounds = badge ? [badge] : [page, getComputedStyle(document.querySelector('svg.figure .party rect')).fill]
      for (const ground of grounds) {
        const ratio = between(own, ground)
        if (ratio < 4.5) found.push(`"${text.textContent}" has the contrast ${ratio.toFixed(2)}`)
      }
    }
    return found
  })
  for (const one of new Set(weak)) problems.push(`${at}: ${one}`)
}

// walk goes through the steps by Tab and Enter alone, and sees that each shows its
// message, and no other one.
async function walk (page, at, problems, found) {
  const acts = await page.$$eval('.act', (all) => all.map((act) => act.dataset.prefix))
  const expected = await page.$$eval('a.step', (all) => all.length)
  const walked = new Set()
  await page.evaluate(() => { document.activeElement?.blur(); scrollTo(0, 0) })
  for (let tabs = 0; walked.size < expected && tabs < 40 * acts.length + 200; tabs++) {
    await page.keyboard.press('Tab')
    const focused = await page.evaluate(() => {
      const link = document.activeElement
      if (!link?.matches('a.step')) return null
      const ring = getComputedStyle(link.querySelector('.hit')).stroke
      return { href: link.getAttribute('href').slice(1), ring, name: link.textContent.trim() + link.getAttribute('aria-description') }
    })
    if (!focused) continue
    if (focused.ring === 'none') problems.push(`${at}: ${focused.href} does not show that it has the focus`)
    if (!focused.name) problems.push(`${at}: ${focused.href} has no name`)
    await page.keyboard.press('Enter')
    const shown = await page.evaluate((id) => {
      const act = document.getElementById(id).closest('.act')
      const visible = [...act.querySelectorAll('.detail')].filter((detail) => detail.getClientRects().length > 0)
      const detail = document.getElementById(id)
      const { top, bottom } = detail.getBoundingClientRect()
      return {
        visible: visible.map((one) => one.id), state: detail.className, inView: top < innerHeight && bottom > 0,
        text: detail.innerText.trim().length, content: detail.querySelectorAll('.message, .verdict, .idle-text').length
      }
    }, focused.href)
    if (shown.visible.join() !== focused.href) problems.push(`${at}: Enter on ${focused.href} shows ${shown.visible.join() || 'nothing'}`)
    if (!shown.inView) problems.push(`${at}: what ${focused.href} shows is out of sight`)
    if (shown.text < 60 || shown.content === 0) problems.push(`${at}: ${focused.href} has no content`)
    walked.add(focused.href)
  }
  found.walked += walked.size
  for (const prefix of acts) {
    for (const step of [...figure1, 'f']) {
      if (!walked.has(prefix + step)) problems.push(`${at}: ${prefix}${step} cannot be reached by keyboard`)
    }
  }
  found.steps = await page.$$eval('.detail.ran, .detail.failed', (all) => all.filter((one) => one.querySelector('.message, .verdict')).length)
}

// print sees that on paper every step is there, and that no colour is taken for granted.
async function print (file, name, isFirst, problems, found) {
  const page = await open(file, 800, 'dark', (problem) => problems.push(`print: ${problem}`), found)
  await page.emulateMediaType('print')
  const seen = await page.evaluate(() => ({
    hidden: [...document.querySelectorAll('.detail')].filter((detail) => detail.getClientRects().length === 0).map((detail) => detail.id),
    ground: getComputedStyle(document.body).backgroundColor,
    buttons: [...document.querySelectorAll('button')].filter((button) => button.getClientRects().length > 0).length
  }))
  if (seen.hidden.length > 0) problems.push(`print: ${seen.hidden} is not there`)
  if (seen.ground !== 'rgb(255, 255, 255)') problems.push(`print: the ground is ${seen.ground}`)
  if (seen.buttons > 0) problems.push('print: there are buttons')
  if (isFirst) {
    const pdf = await page.pdf({ path: join(folder, `${name}.pdf`), format: 'A4' })
    if (pdf.length < 10_000) problems.push('print: the PDF is empty')
    await page.setViewport({ width: 720, height: 1000 })
    await page.screenshot({ path: join(folder, `${name}-print.png`), fullPage: true })
    found.screenshots++
  }
  await page.close()
}
