'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const root = document.getElementById('viewer');
  if (!root || data.frames.length === 0) return;
  const $ = id => document.getElementById(id);
  const made = (name, attributes, parent) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === 'text') element.textContent = value; else element.setAttribute(key, value);
    }
    if (parent) parent.append(element);
    return element;
  };

  // Places in data.frames, in the order that is chosen.
  const orders = {
    worst: data.frames.map((_, index) => index),
    clip: data.frames.map((_, index) => index).sort((a, b) => data.frames[a].frame - data.frames[b].frame),
  };
  let order = orders.worst;
  let position = 0;

  const stack = (parent, name) => {
    const box = made('div', {class: 'stack'}, parent);
    made('img', {class: 'frame', alt: ''}, box);
    made('img', {class: 'mask', alt: '', 'data-source': name}, box);
    return box;
  };
  for (const name of data.sources) {
    const figure = made('figure', {'data-source': name}, $('side'));
    made('figcaption', {}, figure);
    stack(figure, name);
  }
  const wiped = stack($('stage'), data.sources[0]);
  made('img', {class: 'mask', alt: '', id: 'over'}, wiped);
  made('div', {class: 'divider'}, wiped);
  const worst = data.frames[0].worst;
  const other = worst === null ? 1 : data.sources.indexOf(worst.variant);
  for (const [id, chosen] of [['left', 0], ['right', Math.min(other, data.sources.length - 1)]]) {
    data.sources.forEach((name, index) => {
      const option = made('option', {value: name, text: name}, $(id));
      option.selected = index === chosen;
    });
  }

  const says = (shown, name) => {
    const parts = [name];
    const iou = shown.iou[name], score = shown.score[name];
    if (iou !== undefined) parts.push('IoU ' + iou.toFixed(2));
    if (score !== undefined) parts.push('J&F ' + score.toFixed(2));
    return parts.join(' · ');
  };
  // A mask that is missing is an empty one.
  const put = (image, source, alt) => {
    image.hidden = !source;
    if (source) image.src = source; else image.removeAttribute('src');
    image.alt = alt;
  };
  const divide = () => {
    const share = Number($('divide').value);
    $('over').style.clipPath = `inset(0 0 0 ${share}%)`;
    wiped.querySelector('.mask').style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    wiped.querySelector('.divider').style.left = share + '%';
  };
  const show = () => {
    const shown = data.frames[order[position]];
    for (const figure of $('side').children) {
      const name = figure.dataset.source;
      figure.querySelector('figcaption').textContent = says(shown, name);
      put(figure.querySelector('.frame'), shown.image, `frame ${shown.frame}`);
      put(figure.querySelector('.mask'), shown.masks[name], `masks of ${name} on frame ${shown.frame}`);
    }
    const [left, right] = [$('left').value, $('right').value];
    put(wiped.querySelector('.frame'), shown.image, `frame ${shown.frame}`);
    put(wiped.querySelector('.mask'), shown.masks[left], `masks of ${left}`);
    put($('over'), shown.masks[right], `masks of ${right}`);
    $('said').textContent = `left: ${says(shown, left)}; right: ${says(shown, right)}`;
    $('pick').value = position;
    $('pick').setAttribute('aria-valuetext', `frame ${shown.frame}`);
    const worst = shown.worst === null ? '' :
      `: at worst object ${shown.worst.object} in ${shown.worst.variant}, IoU ${shown.worst.iou.toFixed(2)}`;
    $('where').textContent = `Frame ${shown.frame}${worst} (${position + 1} of ${order.length} shown)`;
    [...$('chips').children].forEach((chip, index) => chip.setAttribute('aria-pressed', index === position));
    for (const plot of document.querySelectorAll('.plot')) {
      const cursor = plot.querySelector('.cursor');
      cursor.style.display = 'block';
      cursor.style.left = shown.frame / Math.max(1, Number(plot.dataset.frames) - 1) * 100 + '%';
    }
  };
  const go = to => {
    position = Math.max(0, Math.min(order.length - 1, to));
    show();
    const chip = $('chips').children[position], chips = $('chips');
    // Not scrollIntoView: that would move the page as well.
    if (chips.scrollWidth > chips.clientWidth) {
      chips.scrollLeft = chip.offsetLeft - chips.offsetLeft - chips.clientWidth / 2 + chip.offsetWidth / 2;
    }
  };
  const list = () => {
    $('chips').replaceChildren();
    order.forEach((place, index) => {
      const shown = data.frames[place];
      const label = shown.worst === null ? String(shown.frame) : `${shown.frame} · ${shown.worst.iou.toFixed(2)}`;
      const chip = made('button', {type: 'button', text: label, class: shown.among_worst ? 'worst' : ''}, $('chips'));
      chip.setAttribute('aria-label', `frame ${shown.frame}` + (shown.worst === null ? '' : `, lowest IoU ${shown.worst.iou.toFixed(2)}`));
      chip.addEventListener('click', () => go(index));
    });
  };
  const mode = () => {
    const wipe = $('as-wipe').checked;
    $('side').hidden = wipe;
    $('wipe').hidden = !wipe;
  };

  $('pick').max = order.length - 1;
  $('pick').addEventListener('input', () => go(Number($('pick').value)));
  $('previous').addEventListener('click', () => go(position - 1));
  $('next').addEventListener('click', () => go(position + 1));
  $('order').addEventListener('change', () => {
    const kept = order[position];
    order = orders[$('order').value];
    list();
    go(order.indexOf(kept));
  });
  $('masks').addEventListener('change', () => root.classList.toggle('plain', !$('masks').checked));
  for (const id of ['as-side', 'as-wipe']) $(id).addEventListener('change', mode);
  for (const id of ['left', 'right']) $(id).addEventListener('change', show);
  $('divide').addEventListener('input', divide);
  const drag = event => {
    if (event.type === 'pointermove' && event.buttons === 0) return;
    const bounds = wiped.getBoundingClientRect();
    $('divide').value = (event.clientX - bounds.left) / bounds.width * 100;
    divide();
  };
  wiped.addEventListener('pointerdown', drag);
  wiped.addEventListener('pointermove', drag);
  for (const plot of document.querySelectorAll('.plot')) {
    plot.addEventListener('click', event => {
      const bounds = plot.getBoundingClientRect();
      const frame = (event.clientX - bounds.left) / bounds.width * (Number(plot.dataset.frames) - 1);
      const away = place => Math.abs(data.frames[place].frame - frame);
      go(order.indexOf(order.reduce((best, place) => away(place) < away(best) ? place : best)));
    });
  }
  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    // Those elements have keys of their own.
    if (event.target.closest('select, input[type=range], input[type=radio], [data-scroll]') && event.key.startsWith('Arrow')) return;
    if (event.target.closest('select')) return;
    if (event.key === 'ArrowRight') go(position + 1);
    else if (event.key === 'ArrowLeft') go(position - 1);
    else if (event.key === 'm') $('masks').click();
    else if (event.key === 'w') $($('as-wipe').checked ? 'as-side' : 'as-wipe').click();
    else return;
    event.preventDefault();
  });
  list();
  divide();
  mode();
  go(0);
})();
