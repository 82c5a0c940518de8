/* A lab extension, written in the form that JupyterLab loads, so that nothing has to be built. In JupyterLab it does
   nothing; in the slides (RISE, /rise/...) it does three things:

   1. RISE lacks @jupyterlab/console, for whose tracker the extension of ipywidgets asks, and without which no demo
      is shown. The tracker is optional there, so a token that nobody provides is enough.
   2. It fits the present slide into the page. Figures get the height that the rest leaves them; outputs stand
      beside their code, and figures without it, where that is better to read; fonts shrink where need be, never below
      the least that style.css names.
   3. It helps a lecturer to move: an address with #section or #/slide-2-1 opens there, a link to a notebook opens its
      slides, the arrows go from slide to slide, and a double click does not show the source of a text. */
(() => {
  async function init(scope) {
    if ('@jupyterlab/console' in scope) return;
    const [entry] = Object.values(scope['@lumino/coreutils']);
    const { Token } = (await entry.get())();
    const standIn = { IConsoleTracker: new Token('@jupyterlab/console:IConsoleTracker') };
    scope['@jupyterlab/console'] = { '4.6.2': { get: async () => () => standIn, from: 'course-slides' } };
  }

  const FIGURE = '.jp-RenderedImage img, .course-demo .widget-image';
  const BESIDE = '.jp-RenderedImage, .jp-OutputArea-output :is(table, pre)';
  const WIDE = '.cm-scroller, .jp-RenderedHTMLCommon, .jp-OutputArea-output, pre, table';
  const STEPS = [0, 1, 2, 3]; // from fonts at full size to the least
  // What a layout counts: outputs below their code, beside it, where long lines wrap, or figures without their code.
  const LAYOUTS = { 'course-below': 1, 'course-beside': 0.9, 'course-alone': 0.75 };
  const HEIGHTS = [580, 540, 500, 460, 430, 400, 370, 340, 310, 280, 250, 220, 190, 160]; // in --course-unit
  const READABLE = 0.55; // a figure of this share of its pixels, in --course-unit, counts in full

  const measure = (slide, name) => Number(getComputedStyle(slide).getPropertyValue(`--course-${name}`));

  function unit(slide) {
    return Math.min(slide.clientWidth / measure(slide, 'page-width'), slide.clientHeight / measure(slide, 'page-height'));
  }

  /* By how much fonts may be scaled, the largest first: the last leaves prose or code at its least. */
  function scales(slide) {
    const least = Math.max(...['text', 'code'].map(name => measure(slide, `least-${name}`) / measure(slide, name)));
    return STEPS.map(step => 1 - ((1 - least) * step) / STEPS.at(-1));
  }

  function arrange(slide, scale, layout) {
    slide.style.setProperty('--course-fit', scale);
    slide.querySelectorAll('.jp-Cell').forEach(cell => {
      const has = cell.querySelector(layout === 'course-alone' ? FIGURE : BESIDE);
      Object.keys(LAYOUTS).forEach(name => cell.classList.toggle(name, Boolean(has) && name === layout));
    });
  }

  function enlarge(figures, height) {
    figures.forEach(image => image.style.setProperty('--course-figure', `calc(${height} * var(--course-unit))`));
  }

  function fits(slide, wide) {
    if (slide.scrollHeight > slide.clientHeight + 1) return false;
    return wide.every(part => part.scrollWidth <= part.clientWidth + 1);
  }

  /* The index of the largest of HEIGHTS at which the slide fits, found by halving; their number where it never does. */
  function largest(slide, figures, wide) {
    let [low, high] = [figures.length ? 0 : HEIGHTS.length - 1, HEIGHTS.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      enlarge(figures, HEIGHTS[middle]);
      if (fits(slide, wide)) high = middle;
      else low = middle + 1;
    }
    return high;
  }

  function readability(slide, figures) {
    const shown = image => Math.min(image.clientWidth, (image.clientHeight * image.naturalWidth) / image.naturalHeight);
    return Math.min(1, ...figures.map(image => shown(image) / unit(slide) / READABLE / image.naturalWidth));
  }

  /* Try scale by scale and layout by layout the largest figures that fit; keep what reads best. */
  function fit(slide) {
    const [figures, wide] = [FIGURE, WIDE].map(parts => [...slide.querySelectorAll(parts)]);
    const layouts = Object.entries(LAYOUTS).slice(0, figures.length ? 3 : slide.querySelector(BESIDE) ? 2 : 1);
    const tried = scales(slide);
    let best = { scale: tried.at(-1), layout: 'course-below', height: HEIGHTS.at(-1), score: 0 };
    for (const scale of tried) {
      for (const [layout, counts] of layouts) {
        if (scale * counts <= best.score) continue;
        arrange(slide, scale, layout);
        const height = HEIGHTS[largest(slide, figures, wide)];
        if (!height) continue;
        enlarge(figures, height);
        const score = scale * counts * readability(slide, figures);
        if (score > best.score) best = { scale, layout, height, score };
      }
    }
    arrange(slide, best.scale, best.layout);
    enlarge(figures, best.height);
  }

  /* The slide that the end of an address names: by its id, by numbers as Reveal's speaker's window has it, or by a
     heading, with dashes as in JupyterLab's links. */
  function named(hash) {
    const name = decodeURIComponent(hash.slice(1));
    const [, h, v = 0] = name.match(/^\/(\d+)(?:\/(\d+))?/) ?? [];
    if (h) return document.querySelectorAll('.slides > section')[h]?.querySelectorAll('section')[v];
    const asLink = heading => heading.textContent.replace(/¶$/, '').trim().replaceAll(' ', '-') === name;
    const headings = [...document.querySelectorAll('.slides section section :is(h1, h2, h3, h4)')];
    return document.getElementById(name.slice(1)) ?? headings.find(asLink)?.closest('section');
  }

  let turning = 0;

  /* Turn to a slide, more than once: RISE may turn to a cell that it selects a little later. A key puts an end to it. */
  function turn(slide, tries = 20) {
    if (!slide || !tries) return;
    const addresses = [`#/${slide.id}`, `#/${slide.id.replace('slide-', '').replace('-', '/')}`];
    // The other one, for an address that stays the same turns no page.
    if (!slide.classList.contains('present')) location.hash = addresses.find(address => address !== location.hash);
    turning = setTimeout(() => turn(slide, tries - 1), 50);
  }

  function onLink(event) {
    const link = event.target.closest?.('.slides a[href]');
    const notebook = link?.origin === location.origin && link.href.match(/([^/?#]+\.ipynb)[^#]*(#.*)?$/);
    if (!notebook) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    location.href = location.pathname.replace(/[^/]*$/, notebook[1]) + location.search + (notebook[2] ?? '');
  }

  const PAGES = { ArrowRight: 34, ArrowLeft: 33 }; // the codes of Page Down and Page Up: Reveal's arrows leave slides out

  function onArrow(event) {
    const busy = event.target.closest?.('.cm-content, input, select, textarea') ?? document.querySelector('.overview');
    if (!(event.key in PAGES) || busy || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    document.dispatchEvent(new KeyboardEvent('keydown', { keyCode: PAGES[event.key] }));
  }

  /* Shift+Enter runs the cell and stays, where RISE would turn to the next; Enter does not show a text's source. */
  function onEnter(event, app) {
    if (event.key !== 'Enter' || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.shiftKey) app.commands.execute('notebook:run-cell');
    else if (!document.querySelector('.jp-MarkdownCell.jp-mod-active')) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  function activate(app) {
    if (app.name !== 'Rise') return;
    const asked = location.hash;
    document.addEventListener('ready', () => asked && turn(named(asked)), { once: true });
    const onHash = event => {
      if (location.hash.startsWith('#/')) return;
      event.stopImmediatePropagation(); // Reveal would turn to the first slide
      turn(named(location.hash));
    };
    window.addEventListener('hashchange', onHash, true);
    document.addEventListener('click', onLink, true);
    const onText = ({ target }) => target.closest?.('.slides .jp-MarkdownCell');
    document.addEventListener('dblclick', event => onText(event) && event.stopImmediatePropagation(), true);
    let queued = 0;
    const present = () => document.querySelector('.slides section section.present');
    const heights = slide => [...slide.querySelectorAll('.jp-Cell')].map(cell => cell.offsetHeight).join();
    let fitted = '';
    const refit = () => {
      queued ||= requestAnimationFrame(() => {
        queued = 0;
        if (!present()) return;
        fit(present());
        fitted = heights(present());
      });
    };
    // What changes while a slide is fitted is no reason to fit it again.
    const cells = new ResizeObserver(() => present() && heights(present()) !== fitted && refit());
    const show = () => {
      cells.disconnect();
      refit();
      present()?.querySelectorAll('.jp-Cell').forEach(cell => cells.observe(cell));
    };
    for (const event of ['ready', 'slidechanged']) document.addEventListener(event, show);
    window.addEventListener('resize', refit);
    // Keys pressed in a demo are for its sliders: neither Lumino's shortcuts nor Reveal may turn the page.
    const inDemo = ({ target }) => target.closest?.('.jupyter-widgets') && target;
    window.addEventListener('keydown', event => inDemo(event)?.setAttribute('data-lm-suppress-shortcuts', ''), true);
    document.addEventListener('keydown', event => inDemo(event) && event.stopImmediatePropagation());
    // Before Lumino has them: what it does with these keys depends on what has the focus.
    for (const act of [() => clearTimeout(turning), onEnter, onArrow])
      window.addEventListener('keydown', event => inDemo(event) || act(event, app), true);
  }

  const plugin = { id: 'course-slides:plugin', autoStart: true, activate };
  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB['course-slides'] = { init, get: async () => () => ({ __esModule: true, default: plugin }) };
})();
