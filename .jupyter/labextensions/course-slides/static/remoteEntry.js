/* A lab extension, written in the form that JupyterLab loads, so that nothing has to be built. In JupyterLab it does
   nothing; in the slides (RISE, /rise/...) it does two things:

   1. RISE lacks @jupyterlab/console, for whose tracker the extension of ipywidgets asks, and without which no demo
      is shown. The tracker is optional there, so a token that nobody provides is enough.
   2. It fits the present slide into the page. Figures get the height that the rest leaves them; outputs stand
      beside their code where that is better to read; fonts shrink where need be, never below 0.78 of what style.css
      says. */
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
  const SCALES = [1, 0.92, 0.85, 0.78];
  const HEIGHTS = [460, 430, 400, 370, 340, 310, 280, 250, 220, 190, 160]; // of a page of 1280 × 720
  const READABLE = 620; // a figure this wide on that page counts in full

  function apply(slide, { scale, beside, height }) {
    slide.style.setProperty('--course-fit', scale);
    slide.style.setProperty('--course-figure', `calc(${height} * var(--course-unit))`);
    slide.querySelectorAll(BESIDE).forEach(output => {
      output.closest('.jp-Cell').classList.toggle('course-beside', beside);
    });
  }

  function fits(slide) {
    if (slide.scrollHeight > slide.clientHeight + 1) return false;
    return [...slide.querySelectorAll(WIDE)].every(part => part.scrollWidth <= part.clientWidth + 1);
  }

  function score(slide, figures, { scale, beside }) {
    const unit = Math.min(slide.clientWidth / 1280, slide.clientHeight / 720);
    const shown = image => Math.min(image.clientWidth, (image.clientHeight * image.naturalWidth) / image.naturalHeight);
    const sizes = figures.map(image => Math.min(1, shown(image) / unit / READABLE));
    return scale * Math.min(1, ...sizes) * (beside ? 0.9 : 1); // long lines wrap beside a figure
  }

  /* Try scale by scale, above and beside, the largest figures that fit; keep the layout that reads best. */
  function fit(slide) {
    const figures = [...slide.querySelectorAll(FIGURE)];
    const besides = slide.querySelector(BESIDE) ? [false, true] : [false];
    let best = { scale: SCALES.at(-1), beside: false, height: HEIGHTS.at(-1), score: 0 };
    for (const scale of SCALES.filter(scale => scale > best.score)) {
      for (const beside of besides) {
        for (const height of figures.length ? HEIGHTS : [0]) {
          const layout = { scale, beside, height };
          apply(slide, layout);
          if (!fits(slide)) continue;
          layout.score = score(slide, figures, layout);
          if (layout.score > best.score) best = layout;
          break;
        }
      }
    }
    apply(slide, best);
  }

  function activate(app) {
    if (app.name !== 'Rise') return;
    let queued = 0;
    const present = () => document.querySelector('.slides section section.present');
    const refit = () => {
      cancelAnimationFrame(queued);
      queued = requestAnimationFrame(() => present() && fit(present()));
    };
    const cells = new ResizeObserver(refit);
    const show = () => {
      cells.disconnect();
      present()?.querySelectorAll('.jp-Cell').forEach(cell => cells.observe(cell));
      refit();
    };
    for (const event of ['ready', 'slidechanged']) document.addEventListener(event, show);
    window.addEventListener('resize', refit);
    // Keys pressed in a demo are for its sliders: neither Lumino's shortcuts nor Reveal may turn the page.
    const inDemo = ({ target }) => target.closest?.('.jupyter-widgets') && target;
    window.addEventListener('keydown', event => inDemo(event)?.setAttribute('data-lm-suppress-shortcuts', ''), true);
    document.addEventListener('keydown', event => inDemo(event) && event.stopImmediatePropagation());
    // Shift+Enter runs the cell and stays; RISE would turn to the slide of the next cell.
    const selector = '.rise-enabled .lm-Widget.jp-NotebookPanel.reveal :focus';
    app.commands.addKeyBinding({ command: 'notebook:run-cell', keys: ['Shift Enter'], selector });
  }

  const plugin = { id: 'course-slides:plugin', autoStart: true, activate };
  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB['course-slides'] = { init, get: async () => () => ({ __esModule: true, default: plugin }) };
})();
