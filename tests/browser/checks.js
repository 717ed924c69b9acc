() => {
  // Returns what is wrong with the page as it is shown, one sentence each; an empty list where nothing is.
  const problems = [];
  const screen = document.documentElement.clientWidth;
  const elements = [...document.body.querySelectorAll("*")];
  const onEachOther = (element) => element.closest(".slider"); // there pictures and the control lie on each other
  const forReaders = (element) => element.closest(".said"); // words in place of a sign, for those who do not see it
  const isShown = (element) => element.checkVisibility({ visibilityProperty: true }) && !forReaders(element);
  const words = (element) => element.textContent.trim().replace(/\s+/g, " ").slice(0, 40);
  const name = (element) => `${element.localName} "${words(element)}"`;
  const apart = (a, b, slack) =>
    a.right <= b.left + slack || b.right <= a.left + slack || a.bottom <= b.top + slack || b.bottom <= a.top + slack;

  function texts() {
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      const element = node.parentElement;
      if (!node.data.trim() || !isShown(element) || ["STYLE", "SCRIPT"].includes(element.tagName)) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      found.push({ node, element, lines: [...range.getClientRects()] });
    }
    return found;
  }

  function checkPictures() {
    for (const picture of document.images) {
      const box = picture.getBoundingClientRect();
      if (!picture.complete || picture.naturalWidth === 0) problems.push(`picture without pixels: ${picture.alt}`);
      else if (isShown(picture) && (box.width < 8 || box.height < 8)) problems.push(`picture of no size: ${picture.alt}`);
    }
  }

  function checkNothingIsEmpty() {
    const holders = "h1,h2,h3,h4,p,th,td,li,pre,figure,figcaption,article,section,header,summary,table,tbody,ul,ol,svg";
    for (const element of document.querySelectorAll(holders)) {
      if (isShown(element) && !element.textContent.trim() && !element.querySelector("img,svg,input,path"))
        problems.push(`empty: ${element.outerHTML.slice(0, 60)}`);
    }
  }

  function checkText(all) {
    for (const { element, lines } of all) {
      const box = element.getBoundingClientRect();
      if (!lines.length || lines.every((line) => line.width < 1 || line.height < 1) || box.width < 1 || box.height < 1)
        problems.push(`text of no size: ${name(element)}`);
      const zoom = element instanceof SVGElement ? element.getScreenCTM().a : 1;
      const size = parseFloat(getComputedStyle(element).fontSize) * zoom;
      if (size < 10) problems.push(`text of ${size.toFixed(1)} pixels: ${name(element)}`);
      for (const line of lines) checkInside(element, line);
    }
  }

  function checkInside(element, line) {
    for (let around = element; around; around = around.parentElement) {
      const overflow = getComputedStyle(around).overflowX;
      if (around === document.body) break;
      if (overflow === "auto" || overflow === "scroll") return;
      const box = around.getBoundingClientRect();
      if (overflow !== "visible" && (line.left < box.left - 1 || line.right > box.right + 1 ||
          line.top < box.top - 3 || line.bottom > box.bottom + 3))
        problems.push(`text cut off: ${name(element)}`);
    }
    if (line.left < -1 || line.right > screen + 1) problems.push(`text beyond the screen: ${name(element)}`);
  }

  function checkWordsAreWhole(all) {
    const range = document.createRange();
    for (const { node, element } of all) {
      for (const { 0: word, index } of node.data.matchAll(/[^\s/-]+/g)) {
        if (word.length > 20 || /[^\x20-\x7e]/.test(word)) continue; // names of files; writing without spaces
        range.setStart(node, index);
        range.setEnd(node, index + word.length);
        const lines = [...range.getClientRects()].filter((line) => line.width > 0);
        if (lines.length > 1) problems.push(`broken word: ${word} in ${name(element)}`);
      }
    }
  }

  function checkSiblings() {
    for (const parent of [document.body, ...elements]) {
      if (onEachOther(parent) || parent instanceof SVGElement) continue;
      const children = [...parent.children].filter(
        (child) => isShown(child) && (child.matches("img,svg,input") || getComputedStyle(child).display !== "inline"));
      const boxes = children.map((child) => child.getBoundingClientRect());
      boxes.forEach((box, i) => {
        for (let j = i + 1; j < boxes.length; j++)
          if (!apart(box, boxes[j], 1)) problems.push(`overlap: ${name(children[i])} and ${name(children[j])}`);
      });
    }
  }

  function checkTextsDoNotOverlap(all) {
    const lines = all.flatMap(({ node, element, lines }) =>
      lines.map((line) => {
        const trim = line.height / 5; // room above and below the letters
        return { node, element, left: line.left, right: line.right, top: line.top + trim, bottom: line.bottom - trim };
      }));
    lines.sort((a, b) => a.top - b.top);
    lines.forEach((line, i) => {
      for (let j = i + 1; j < lines.length && lines[j].top < line.bottom; j++)
        if (line.node !== lines[j].node && !apart(line, lines[j], 1))
          problems.push(`overlap of texts: ${name(line.element)} and ${name(lines[j].element)}`);
    });
    for (const picture of document.images) {
      if (!isShown(picture)) continue;
      const box = picture.getBoundingClientRect();
      for (const line of lines)
        if (!apart(line, box, 1)) problems.push(`overlap of a text and a picture: ${name(line.element)}`);
    }
  }

  // Contrast: WCAG 2.2, success criterion 1.4.3 and its definitions of relative luminance and contrast ratio.
  function colour(text) {
    const parts = text.match(/^rgba?\(([^)]*)\)$/);
    if (!parts) throw new Error(`a colour that is not understood: ${text}`);
    const [red, green, blue, alpha = 1] = parts[1].split(/[\s,/]+/).map(Number);
    return { rgb: [red, green, blue], alpha };
  }
  const over = (top, alpha, below) => top.map((value, i) => value * alpha + below[i] * (1 - alpha));
  function ground(element) {
    const layers = [];
    for (let around = element; around; around = around.parentElement) {
      const { rgb, alpha } = colour(getComputedStyle(around).backgroundColor);
      layers.push({ rgb, alpha });
      if (alpha === 1) break;
    }
    return layers.reverse().reduce((below, { rgb, alpha }) => over(rgb, alpha, below), [255, 255, 255]);
  }
  function luminance(rgb) {
    const [r, g, b] = rgb.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }
  function checkContrast(all) {
    for (const element of new Set(all.map((text) => text.element))) {
      const style = getComputedStyle(element);
      let { rgb, alpha } = colour(element instanceof SVGElement ? style.fill : style.color);
      for (let around = element; around; around = around.parentElement) alpha *= getComputedStyle(around).opacity;
      const below = ground(element);
      const [light, dark] = [luminance(over(rgb, alpha, below)), luminance(below)].sort((a, b) => b - a);
      const ratio = (light + 0.05) / (dark + 0.05);
      if (ratio < 4.5) problems.push(`contrast of ${ratio.toFixed(2)}: ${name(element)}`);
    }
  }

  const all = texts();
  if (!all.length) problems.push("no text at all");
  const width = document.scrollingElement.scrollWidth;
  if (width > screen) problems.push(`scrolls sideways: ${width} pixels on a screen of ${screen}`);
  checkPictures();
  checkNothingIsEmpty();
  checkText(all);
  checkWordsAreWhole(all);
  checkSiblings();
  checkTextsDoNotOverlap(all);
  checkContrast(all);
  return [...new Set(problems)];
}
