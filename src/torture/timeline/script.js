const chart = document.getElementById('chart'), cursor = document.getElementById('cursor'), when = document.getElementById('when');
chart.addEventListener('mousemove', (event) => {
  const box = chart.getBoundingClientRect(), [left, right, span] = chart.dataset.scale.split(' ').map(Number);
  const x = (event.clientX - box.left) * chart.viewBox.baseVal.width / box.width;
  if (x < left || x > right) return;
  cursor.setAttribute('x1', x); cursor.setAttribute('x2', x); when.setAttribute('x', x + 4);
  when.textContent = ((x - left) / (right - left) * span).toFixed(2) + ' s';
});
